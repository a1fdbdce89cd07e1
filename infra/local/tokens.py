"""API keys of the laptop cloud: one per role, one of a second tenant, and one of all tenants."""

from __future__ import annotations

from infra.cloud import Cloud
from infra.keys import make_key

ALL_TENANTS = "stage_admin"
KEYS = {  # name in stack.json: tenant, role, user
    "admin": ("demo", "admin", "admin"),
    "operator": ("demo", "operator", "operator"),
    "user": ("demo", "user", "user"),
    "viewer": ("demo", "viewer", "viewer"),
    "other_user": ("other", "user", "user"),
    ALL_TENANTS: ("demo", "admin", "stage_admin"),
}


def make_tokens(cloud: Cloud) -> dict[str, str]:
    """Create one key per name."""
    cloud.bind_this_process()
    return {name: make_key(cloud.stage, *key, all_tenants=name == ALL_TENANTS) for name, key in KEYS.items()}
