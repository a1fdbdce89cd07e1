"""Remove secrets from sentences before they are shown.

Words of a library or of a server may quote what was sent to them, such as a header with the key.
"""

from __future__ import annotations

import re

MIN_SECRET_CHARS = 6  # a shorter "key" is a typing error, and would be cut out of ordinary words
HIDDEN = "***"

_KEY = re.compile(r"\b(hr_|sk-)[A-Za-z0-9_-]{6,}")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[^\s'\"]+")
_USERINFO = re.compile(r"(?<=://)[^/@\s\"']*@")
_TICKET = re.compile(r"(?<=[?&]ticket=)[^&\s'\"]+")
_remembered: set[str] = set()


def remember(secret: str | None) -> None:
    """From now on, cut this secret out of everything that is shown as an error or a note."""
    if secret and len(secret) >= MIN_SECRET_CHARS:
        _remembered.add(secret)


def redact(text: str) -> str:
    """`text` without keys, tickets and the credentials of addresses."""
    for secret in sorted(_remembered, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _KEY.sub(lambda found: found[1] + HIDDEN, text)
    text = _BEARER.sub(lambda found: found[1] + HIDDEN, text)
    return _TICKET.sub(HIDDEN, _USERINFO.sub(f"{HIDDEN}@", text))
