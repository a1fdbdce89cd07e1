"""Keys for the roles of two tenants, made by the product's own code, so that everything can be tried at once."""

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
    """One key for each name."""
    cloud.bind_this_process()
    return {name: make_key(cloud.stage, *key) for name, key in KEYS.items()}
