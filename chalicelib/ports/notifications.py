"""Whom we write to: webhooks, e-mail, Slack; and what is known of each message on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.units import Ms


class Deliveries(Protocol):
    """Messages on their way, each kept for thirty days after its last step."""

    def create(self, delivery: Delivery) -> Delivery:
        """Put a new one; what is there already stays. The answer is what is there. First what names it as open, so that it is never
        forgotten.
        """

    def get(self, owner: str, delivery_id: str) -> Delivery | None: ...

    def for_owner(self, owner: str) -> list[Delivery]:
        """Those of a job or batch, the newest first, at most a hundred."""

    def replace(self, seen: Delivery, new: Delivery) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen. A swap that had been done already succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """

    def due(self, until: Ms, limit: int) -> list[Delivery]:
        """Open ones whose `look_at` is not after `until`, the longest overdue of each of the four parts first, at most `limit` of each:
        eight requests.
        """


class NotificationSettings(Protocol):
    """What a tenant signs with, and whom it may write to. Kept for a minute after it was read, unless `fresh`."""

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> SigningSecrets | None: ...

    def create_signing_secrets(self, tenant: str, seal: SigningSecrets) -> SigningSecrets:
        """Put the first one; the answer is what is there, which somebody else may have put."""

    def put_signing_secrets(self, tenant: str, seal: SigningSecrets) -> None:
        """In the place of the one that is there."""

    def allowlist(self, tenant: str, *, fresh: bool = False) -> RecipientAllowlist:
        """Empty where nobody has written one."""

    def put_allowlist(self, tenant: str, book: RecipientAllowlist) -> None: ...


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """What a receiver answered. `retry_after` in seconds, if it said so."""

    status: int
    retry_after: float | None = None


class WebhookClient(Protocol):
    """HTTP to addresses that others gave us: only to public ones, and to exactly the one that was checked."""

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        """Any answer, redirects included, which are not followed.

        Raises:
            NotSent: there was no answer, or none may be asked for.
        """


class EmailSender(Protocol):
    @property
    def is_configured(self) -> bool:
        """Whether this stage has a sender address."""

    def send(self, to: str, subject: str, text: str) -> None:
        """Hand a mail over.

        Raises:
            NotSent: it was not taken.
        """
