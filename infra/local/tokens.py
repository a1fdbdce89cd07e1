"""Keys for the roles of two tenants, made by the product's own code, so that everything can be tried at once."""

from __future__ import annotations

import importlib
import os

from infra.cloud import local_environment, without_aws

KEYS = {  # name in stack.json: tenant, role, user
    "admin": ("demo", "admin", "admin"),
    "operator": ("demo", "operator", "operator"),
    "user": ("demo", "user", "user"),
    "viewer": ("demo", "viewer", "viewer"),
    "other_user": ("other", "user", "user"),
}


def make_tokens(endpoint: str) -> dict[str, str]:
    """One key for each name. This process is bound to the emulator first, since `make_key` uses the environment's AWS."""
    environment = without_aws(dict(os.environ)) | local_environment(endpoint) | {"HEADRACE_STAGE": "local"}
    os.environ.clear()
    os.environ.update(environment)
    make_key = importlib.import_module("infra.keys").make_key
    return {name: make_key("local", *key) for name, key in KEYS.items()}
