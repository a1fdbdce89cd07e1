"""Whom a tenant may have written to, and what its webhooks are signed with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from chalicelib.domain.units import DAY_MS, Ms

MAX_RECIPIENTS = 10
MAX_ADDRESSES = 50
# Compiled at their first use: most environments never have one.
_EMAIL = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"


class Channel(StrEnum):
    WEBHOOK = "webhook"
    EMAIL = "email"
    SLACK = "slack"


@dataclass(frozen=True, slots=True)
class Recipient:
    """`address`: a URL, an e-mail address, or the tenant's own name for a Slack channel, whose URL is a secret."""

    channel: Channel
    address: str

    @property
    def name(self) -> str:
        """As `anyone_of` reads it."""
        return f"{self.channel.value}:{self.address}"


def parse_recipient(text: str) -> Recipient:
    """Read `email:ops@acme.com` or `slack:alerts`.

    Raises:
        ValueError: it is neither; the message is the rest of a sentence about it.
    """
    channel, _, address = text.partition(":")
    if channel == Channel.EMAIL and is_email(address):
        return Recipient(Channel.EMAIL, address.lower())
    if channel == Channel.SLACK and is_name(address):
        return Recipient(Channel.SLACK, address)
    raise ValueError("must be email:<address> or slack:<name>")


def parse_any_recipient(text: str) -> Recipient:
    """The same, or `webhook:https://...`.

    Raises:
        ValueError: it is none of them; whether the URL may be reached is asked elsewhere.
    """
    channel, _, address = text.partition(":")
    if channel == Channel.WEBHOOK and address:
        return Recipient(Channel.WEBHOOK, address)
    try:
        return parse_recipient(text)
    except ValueError:
        raise ValueError("must be email:<address>, slack:<name> or webhook:<URL>") from None


def is_email(text: str) -> bool:
    return len(text) <= 254 and re.fullmatch(_EMAIL, text) is not None and ".." not in text


def is_name(text: str) -> bool:
    return re.fullmatch(_NAME, text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientAllowlist:
    """Whom a tenant's administrators allow to be written to. `slack`: name to incoming-webhook URL, which is a secret."""

    emails: tuple[str, ...] = ()
    slack: Mapping[str, str] = field(default_factory=dict, repr=False)

    def allows(self, recipient: Recipient) -> bool:
        if recipient.channel is Channel.EMAIL:
            return recipient.address in self.emails
        return recipient.channel is Channel.WEBHOOK or recipient.address in self.slack

    @property
    def names(self) -> list[str]:
        """As `notify` writes them."""
        return [*(f"email:{address}" for address in self.emails), *(f"slack:{name}" for name in sorted(self.slack))]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecrets:
    """The secrets that a tenant's webhooks are signed with: `whsec_` and base64, as Standard Webhooks writes them.

    After a rotation the one before is good for another day: messages carry a signature of each, so receivers may change in their own time.
    """

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    rotated_at: Ms = 0

    def previous_until(self, now: Ms) -> Ms | None:
        """When the one before stops being good; None: there is none any more."""
        until = self.rotated_at + DAY_MS
        return until if self.previous is not None and now < until else None

    def active(self, now: Ms) -> tuple[str, ...]:
        """The newest first."""
        old = self.previous if self.previous_until(now) is not None else None
        return (self.current, old) if old is not None else (self.current,)

    def rotated(self, secret: str, now: Ms) -> SigningSecrets:
        return replace(self, current=secret, previous=self.current, rotated_at=now)
