"""The address of a Responses API: `https://host/v1`, to which the SDK appends `/responses`."""

from __future__ import annotations

from urllib.parse import urlsplit

HELP = "It has to be like https://api.openai.com/v1, without a query; `/responses` is added to it."
PATHS = ("/responses", "/chat/completions", "/completions", "/models")


def problem_of(base_url: str) -> str | None:
    """Return in one sentence why an address cannot be that of an API; None: it may be one.

    The sentence names the address, without a password or a query.
    """
    shown = base_url.partition("?")[0].partition("#")[0]
    if any(char.isspace() or not char.isprintable() for char in base_url):
        return "The address has a blank or a character that cannot be seen in it."
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        return f"{_without_user(shown)} is no address of HTTP. {HELP}"
    if parts.scheme not in ("http", "https") or not base_url.lower().startswith(f"{parts.scheme}://"):
        return f"{_without_user(shown)} does not begin with https:// or http://. {HELP}"
    if not parts.hostname or port == 0:
        return f"{_without_user(shown)} names no host. {HELP}"
    if parts.username is not None or parts.password is not None:
        return f"{_without_user(shown)} has a user name or password in it; the key is stored apart from the address."
    if "?" in base_url or "#" in base_url:
        return f"{shown} has a query or a fragment (`?` or `#`) behind it, which would end up in the middle of each address. {HELP}"
    if parts.path.rstrip("/").endswith(PATHS):
        return f"{shown} is the address of one request. {HELP}"
    return None


def _without_user(address: str) -> str:
    scheme, separator, rest = address.rpartition("//")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
