"""Recipients of notifications, a tenant's allowlist, and the secrets that sign webhooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from chalicelib.domain.units import DAY_MS, Ms

MAX_RECIPIENTS = 10
MAX_ADDRESSES = 50
# Compiled at first use: most processes never need them.
_EMAIL = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"


class Channel(StrEnum):
    WEBHOOK = "webhook"
    EMAIL = "email"
    SLACK = "slack"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where a message is sent."""

    channel: Channel
    # A URL, an e-mail address, or the tenant's name for a Slack webhook, whose URL is secret.
    address: str

    @property
    def name(self) -> str:
        """The text that `parse_any_recipient` reads."""
        return f"{self.channel.value}:{self.address}"


def parse_recipient(text: str) -> Recipient:
    """Parse `email:ops@acme.com` or `slack:alerts`.

    Raises:
        ValueError: it is neither; the message continues a sentence that begins with the field.
    """
    channel, _, address = text.partition(":")
    if channel == Channel.EMAIL and is_email(address):
        return Recipient(Channel.EMAIL, address.lower())
    if channel == Channel.SLACK and is_name(address):
        return Recipient(Channel.SLACK, address)
    raise ValueError("must be email:<address> or slack:<name>")


def parse_any_recipient(text: str) -> Recipient:
    """Parse a recipient as `parse_recipient` does, or `webhook:https://...`.

    The URL itself is not checked.

    Raises:
        ValueError: it is none of them.
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
    """The recipients that the tenant's administrators allow."""

    emails: tuple[str, ...] = ()
    # Name to incoming-webhook URL, which is secret.
    slack: Mapping[str, str] = field(default_factory=dict, repr=False)

    def allows(self, recipient: Recipient) -> bool:
        """Whether messages may be sent to it. Webhook URLs need no entry."""
        if recipient.channel is Channel.EMAIL:
            return recipient.address in self.emails
        return recipient.channel is Channel.WEBHOOK or recipient.address in self.slack

    @property
    def names(self) -> list[str]:
        """The allowed recipients as `notify` takes them."""
        return [*(f"email:{address}" for address in self.emails), *(f"slack:{name}" for name in sorted(self.slack))]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecrets:
    """The secrets that sign a tenant's webhooks, as in Standard Webhooks: `whsec_` and base64.

    For a day after a rotation messages carry a signature with each secret, so that receivers can
    switch at any time.
    """

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    rotated_at: Ms = 0

    def previous_until(self, now: Ms) -> Ms | None:
        """Return when the previous secret stops being used, or None if there is none."""
        until = self.rotated_at + DAY_MS
        return until if self.previous is not None and now < until else None

    def active(self, now: Ms) -> tuple[str, ...]:
        """Return the secrets to sign with, the newest first."""
        previous = self.previous if self.previous_until(now) is not None else None
        return (self.current, previous) if previous is not None else (self.current,)

    def rotated(self, secret: str, now: Ms) -> SigningSecrets:
        """Return the secrets with `secret` as the current one."""
        return replace(self, current=secret, previous=self.current, rotated_at=now)
