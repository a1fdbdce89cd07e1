"""API keys of the laptop cloud: one per role, and one of a second tenant."""

from __future__ import annotations

from infra.cloud import Cloud
from infra.keys import make_key

KEYS = {  # name in stack.json: tenant, role, user
    "admin": ("demo", "admin", "admin"),
    "operator": ("demo", "operator", "operator"),
    "user": ("demo", "user", "user"),
    "viewer": ("demo", "viewer", "viewer"),
    "other_user": ("other", "user", "user"),
}


def make_tokens(cloud: Cloud) -> dict[str, str]:
    """Create one key per name."""
    cloud.bind_this_process()
    return {name: make_key(cloud.stage, *key) for name, key in KEYS.items()}
