"""Find the API and its key: from options, the environment, a login, or the laptop cloud of this
checkout, in this order.

A key is never sent to an address that it does not belong to. An address from an option or the
environment is used with a key from there, or with the key of a login or laptop cloud at exactly
that address.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.errors import UsageError

ROLES = ("user", "operator", "admin", "viewer", "other_user", "stage_admin")


@dataclass(frozen=True, slots=True)
class Target:
    """An API and the key for it.

    `api_url` includes the stage and has no trailing slash; `ws_url` is None if unknown.
    """

    api_url: str
    key: str | None
    ws_url: str | None = None


def find_target(
    api_url: str | None, key: str | None, role: str = "user", env: Mapping[str, str] = os.environ, start: Path | None = None
) -> Target:
    """The API to use, with its key. Raises UsageError if none is known."""
    env_url = env.get("HEADRACE_API_URL")
    url = api_url or env_url
    if key is None and (api_url is None or env_url is None or api_url.rstrip("/") == env_url.rstrip("/")):
        key = env.get("HEADRACE_KEY")
    ws_url = env.get("HEADRACE_WS_URL")
    known = [target for target in (read_login(env), _from_stack(start or Path.cwd(), role)) if target]
    if url is None and not known:
        raise UsageError("No API is known.", "Run `make up` to start one on this machine, or `headrace login --api-url https://...`.")
    url = (url or known[0].api_url).rstrip("/")
    same = next((target for target in known if target.api_url == url), Target(url, None))
    return Target(url, key or same.key, ws_url or same.ws_url)


def login_file(env: Mapping[str, str] = os.environ) -> Path:
    """The file in which `headrace login` stores address and key."""
    folder = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".config")
    return Path(folder) / "headrace" / "login.json"


def read_login(env: Mapping[str, str] = os.environ) -> Target | None:
    content = _read_json(login_file(env))
    if not content or "api_url" not in content:
        return None
    return Target(content["api_url"], content.get("key"), content.get("ws_url"))


def write_login(target: Target, env: Mapping[str, str] = os.environ) -> Path:
    """Store the login, readable by its owner only because it holds a key."""
    path = login_file(env)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_suffix(".tmp")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(target), file, indent=2)
    unfinished.replace(path)
    return path


def read_stack(start: Path) -> dict[str, Any] | None:
    """The `stack.json` of the checkout around `start`; None if its laptop cloud is not running."""
    for folder in (start, *start.parents):
        content = _read_json(folder / ".local" / "stack.json")
        if content and "api_url" in content:
            return content
    return None


def _from_stack(start: Path, role: str) -> Target | None:
    stack = read_stack(start)
    if stack is None:
        return None
    tokens = stack.get("tokens") or {}
    return Target(stack["api_url"].rstrip("/"), tokens.get(role) or tokens.get("user"), stack.get("ws_url"))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (PermissionError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else None
