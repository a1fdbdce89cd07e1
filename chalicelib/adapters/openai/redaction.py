"""Make a provider's words fit to be shown: one line of plain text, cut, without keys.

Whoever reads the error of a job may not read the key of the stage, and a provider may quote any
part of the request: a key, an address with a password, a signed link.
"""

from __future__ import annotations

import html
import re
import unicodedata

MAX_MESSAGE_LENGTH = 500
MAX_READ = 8_000  # characters of a body that are looked at; a page may have megabytes, and a provider may quote a hostile prompt
HIDDEN = "[hidden]"

_KEY_PREFIXES = r"sk|rk|sess|gsk|ghp|gho|ghs|glpat|xai|xox[abps]|whsec|pplx|nvapi"
_WORD_PREFIXES = r"pk|org|user|hf|hr|r8|fw|tgp"  # they begin words, too: a key has a digit or a star in it
_NAMES = r"api[-_ ]?key|access[-_ ]?token|secret|password|passwd|authorization|subscription[-_ ]?key"
_PATTERNS = (
    r"(?P<user>\b[a-z][a-z0-9+.-]{1,15}://)[^\s/@]+@",  # an address with a user or password
    r"(?P<auth>\b(?:Bearer|Basic|Digest|Token)\s+)(?=[\w.~+/=:-]*\d|[\w.~+/=:-]{16})[\w.~+/=:-]{6,}",
    r"(?P<query>[?&](?:[\w.-]*(?:key|token|secret|signature|password)|sig|code)=)[^&\s\"'<>]+",
    rf"(?P<label>\b(?:{_NAMES})(?:\s+(?:provided|given|is|was|used))*[\"'`]?\s*[:=]\s*[\"'`]?)(?!Bearer|Basic)[^\s\"'`,;<>]{{3,}}",
    # No run is read twice: the last character is found without a search.
    rf"\b(?:{_KEY_PREFIXES})[-_][\w*.-]{{5,}}[\w*-]",
    rf"\b(?:{_WORD_PREFIXES})[-_](?=[\w*.-]{{0,60}}[\d*])[\w*.-]{{5,}}[\w*-]",
    r"\bAIza[\w-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?",
    r"\b[0-9a-fA-F]{32,}\b",
    r"(?-i:(?<![\w+/])(?=[A-Za-z+/_]*[0-9])(?=[0-9A-Z+/_]*[a-z])(?=[0-9a-z+/_]*[A-Z])[A-Za-z0-9+/_]{32,}={0,2})",
)
_SECRETS = re.compile("|".join(_PATTERNS), re.IGNORECASE)
# What is not closed goes on to the end, so that no part of the text is read again for each beginning.
_UNSHOWN = re.compile(r"<(script|style|head|svg|template|noscript)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^<>]*>(.*?)(?:</title|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[/?]?[a-z!][^<>]*>", re.IGNORECASE)
_PAGE = re.compile(r"\s*(?:<!doctype html|<\?xml|<html|<head|<body|<center|<h1|<title)", re.IGNORECASE)


def is_page(text: str) -> bool:
    """Whether a text is a page of HTML or XML, which no API sends."""
    return _PAGE.match(text) is not None


def plain_text(text: str) -> str:
    """Return a text on one line, without tags and without characters that cannot be seen.

    Of a page: its title and the first words of its body.
    """
    text = text[:MAX_READ]
    if is_page(text):
        title = _TITLE.search(text)
        body = _TAG.sub(" ", _UNSHOWN.sub(" ", _TITLE.sub(" ", text) if title is None else text))
        text = " - ".join(
            part for part in (_one_line(html.unescape(title[1])) if title else "", _one_line(html.unescape(body))[:200]) if part
        )
    else:
        text = html.unescape(_TAG.sub(" ", text)) if "<" in text else text
    return _one_line(text)


def redact_message(message: str) -> str:
    """Return a provider's message as plain text, cut and without key material (a 401 quotes the key)."""
    text = _SECRETS.sub(_hide, plain_text(message))
    return text if len(text) <= MAX_MESSAGE_LENGTH else text[: MAX_MESSAGE_LENGTH - 1] + "…"


def _hide(found: re.Match[str]) -> str:
    """Keep what says which secret it is, such as `Bearer`; an address keeps its host."""
    kept = next((found[name] for name in ("user", "auth", "query", "label") if found[name]), "")
    return f"{kept}{HIDDEN}" + ("@" if found["user"] else "")


def _one_line(text: str) -> str:
    shown = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
    return " ".join("".join(char for char in shown if unicodedata.category(char) not in ("Cf", "Cs", "Co")).split())
