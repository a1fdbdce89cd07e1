"""Find the API and its key: from options, the environment, a login, or the laptop cloud of this
checkout, in this order.

A key is never sent to an address that it does not belong to. An address from an option or the
environment is used with a key from there, or with the key of a login or laptop cloud at exactly
that address. An empty option or variable is none: an unset secret of a CI system becomes an empty
variable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.checks.redaction import redact, remember
from cli.checks.text_input import shown as printable
from cli.errors import UsageError

ROLES = ("user", "operator", "admin", "viewer", "other_user", "stage_admin")
MAX_KEY_CHARS = 4_096
_KEY = re.compile(r"[A-Za-z0-9._~+/=:-]+")
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # that come along when a key is copied from a page


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
    """The API to use, with its key. Raises UsageError if none is known, or if address or key cannot work."""
    if role not in ROLES:
        raise UsageError("--as names no key of the laptop cloud.", f"Keys: {', '.join(ROLES)}.")
    option_url, env_url = checked_address(api_url, "--api-url"), checked_address(env.get("HEADRACE_API_URL"), "HEADRACE_API_URL")
    url = option_url or env_url
    given = checked_key(key, "--key")
    if given is None and (option_url is None or env_url is None or option_url == env_url):
        given = checked_key(env.get("HEADRACE_KEY"), "HEADRACE_KEY")
    known = _known(env, start, role, needed=url is None or given is None)
    if url is None and not known:
        raise UsageError("No API is known.", "Run `make up` to start one on this machine, or `headrace login --api-url https://...`.")
    url = url or known[0].api_url
    same = next((target for target in known if target.api_url == url), Target(url, None))
    return Target(url, given or same.key, (env.get("HEADRACE_WS_URL") or "").strip() or same.ws_url)


def checked_address(text: str | None, source: str) -> str | None:
    """An address without blanks around it and slashes at its end; None for an empty one.

    Raises UsageError for an address that no request can be sent to.
    """
    address = (text or "").strip().rstrip("/")
    if not address:
        return None
    shown = redact(printable(address[:200]))
    try:
        parts = urlsplit(address)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise UsageError(f"{source} is no address: '{shown}'.", "An address looks like https://abc.example.com/api.") from error
    if parts.scheme not in ("http", "https") or "://" not in address:
        guess = "http" if address.startswith(("localhost", "127.")) else "https"
        hint = f"Write {guess}://{shown}" if "://" not in address else "An address begins with https:// or http://."
        raise UsageError(f"{source} has no https:// or http:// at its beginning: '{shown}'.", hint)
    if not host or port == 0 or re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff\\]", address):
        raise UsageError(f"{source} is no address: '{shown}'.", "An address looks like https://abc.example.com/api.")
    if "?" in address or "#" in address:
        raise UsageError(f"{source} ends before its `?` or `#`: '{shown}'.", "Paths are added to it: leave the query out.")
    if parts.username is not None:
        raise UsageError(f"{source} has a user name or password in it, which the API does not take.", "Give the key with HEADRACE_KEY.")
    return address


def checked_key(text: str | None, source: str) -> str | None:
    """A key without blanks, line ends and invisible characters around it; None for an empty one.

    Raises UsageError for a key that no header can carry. The sentence never quotes the key.
    """
    remember(text)
    key = (text or "").strip().strip(_INVISIBLE).strip()
    remember(key)
    if not key:
        return None
    if len(key) > MAX_KEY_CHARS:
        raise UsageError(f"The key of {source} is too long for a key: it has {len(key):,} characters.")
    if fault := _KEY.match(key):
        position = fault.end()
        if position == len(key):
            return key
    else:
        position = 0
    raise UsageError(
        f"The key of {source} has a character that no key has: {_named(key[position])} at position {position + 1}.",
        "A key looks like hr_ and letters, digits, `-` and `_`, without quotes and without `Bearer`.",
    )


def login_file(env: Mapping[str, str] = os.environ) -> Path:
    """The file in which `headrace login` stores address and key. Raises UsageError if there is no home folder."""
    folder = env.get("XDG_CONFIG_HOME") or ""
    if os.path.isabs(folder):  # noqa: PTH117  the variable counts only if it is absolute
        return Path(folder) / "headrace" / "login.json"
    try:
        home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    except RuntimeError as error:
        raise UsageError("There is no home folder to keep a login in.", "Set HOME, or HEADRACE_API_URL and HEADRACE_KEY.") from error
    return home / ".config" / "headrace" / "login.json"


def read_login(env: Mapping[str, str] = os.environ) -> Target | None:
    """The stored login; None if there is none. Raises UsageError if the file is damaged."""
    try:
        path = login_file(env)
    except UsageError:  # without a home folder there is no login
        return None
    content = _read_json(path)
    if content is None:
        return None
    fields = [content.get(name) for name in ("api_url", "key", "ws_url")]
    if not isinstance(fields[0], str) or not all(field is None or isinstance(field, str) for field in fields):
        raise UsageError(f"{path} is no login of headrace.", "Delete it, or log in again with `headrace login`.")
    address, key = checked_address(fields[0], str(path)), checked_key(fields[1], str(path))
    return None if address is None else Target(address, key, fields[2] or None)


def write_login(target: Target, env: Mapping[str, str] = os.environ) -> Path:
    """Store the login, readable by its owner only because it holds a key. Raises UsageError if that fails."""
    path = login_file(env)
    unfinished = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(target), file, indent=2)
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}.", "Set XDG_CONFIG_HOME, or use HEADRACE_API_URL and HEADRACE_KEY."
        ) from error
    return path


def read_stack(start: Path | None = None) -> dict[str, Any] | None:
    """The `stack.json` of the checkout around `start`, or around this folder; None if no laptop cloud runs."""
    try:
        folder = start or Path.cwd()
    except OSError:  # the folder was deleted
        return None
    for each in (folder, *folder.parents):
        content = _read_json(each / ".local" / "stack.json")
        if content and isinstance(content.get("api_url"), str):
            return content
    return None


def _known(env: Mapping[str, str], start: Path | None, role: str, needed: bool) -> list[Target]:
    """The login and the laptop cloud. Unless they are needed, a damaged file is none."""
    found = list[Target | None]()
    for stored in ("login", "laptop cloud"):
        try:
            found.append(read_login(env) if stored == "login" else _from_stack(start, role))
        except UsageError:
            if needed:
                raise
    return [target for target in found if target]


def _from_stack(start: Path | None, role: str) -> Target | None:
    stack = read_stack(start)
    address = checked_address(stack["api_url"], "The file .local/stack.json") if stack else None
    if stack is None or address is None:
        return None
    tokens = stack["tokens"] if isinstance(stack.get("tokens"), dict) else {}
    key, ws_url = tokens.get(role) or tokens.get("user"), stack.get("ws_url")
    return Target(
        address,
        checked_key(key, "the file .local/stack.json") if isinstance(key, str) else None,
        ws_url if isinstance(ws_url, str) else None,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are among them
        raise UsageError(f"{path} cannot be read: it is not JSON.", "Delete it, or write it anew with `headrace login`.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} has no JSON object in it.", "Delete it, or write it anew with `headrace login`.")
    return content


def _named(character: str) -> str:
    if character == " ":
        return "a blank"
    return f"`{character}`" if "!" <= character <= "~" else f"U+{ord(character):04X}"
