"""Notifications: deliveries, their recipients and signing secrets, and the clients that send them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.units import Ms


class Deliveries(Protocol):
    """The outbox: stores deliveries until thirty days after their end, and an index of open ones.

    `owner` is the id of the job or batch that the message is about.
    """

    def create(self, delivery: Delivery) -> Delivery:
        """Put a new delivery and return it. One that is there already stays and is returned.

        The index row is written first, so a crash cannot leave a delivery that the sweeper does not
        find.
        """

    def get(self, owner: str, delivery_id: str) -> Delivery | None:
        """Return the delivery, read consistently."""

    def for_owner(self, owner: str) -> list[Delivery]:
        """Return the readable deliveries of a job or batch, newest first, at most a hundred."""

    def replace(self, seen: Delivery, new: Delivery) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen`.

        A repeated swap succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored record.
        """

    def due(self, until: Ms, limit: int) -> list[Delivery]:
        """Return open deliveries with `recheck_at` up to `until`, at most `limit` of each shard.

        Two requests for each of the four shards. Records that cannot be read are left out.
        """


class NotificationSettings(Protocol):
    """Stores each tenant's signing secrets and recipient allowlist.

    Reads are cached for a minute, unless `fresh`.
    """

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> SigningSecrets | None:
        """Return the tenant's signing secrets; None before the first were created."""

    def create_signing_secrets(self, tenant: str, secrets: SigningSecrets) -> SigningSecrets:
        """Store the first signing secrets. Return them, or those of a concurrent call."""

    def put_signing_secrets(self, tenant: str, secrets: SigningSecrets) -> None:
        """Replace the tenant's signing secrets."""

    def allowlist(self, tenant: str, *, fresh: bool = False) -> RecipientAllowlist:
        """Return the tenant's recipient allowlist; empty before the first was stored."""

    def put_allowlist(self, tenant: str, allowlist: RecipientAllowlist) -> None:
        """Replace the tenant's recipient allowlist."""


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """What a receiver answered. `retry_after` in seconds, if it sent that header."""

    status: int
    retry_after: float | None = None


class WebhookClient(Protocol):
    """Posts to URLs that tenants give, but only to a public address, which is checked before."""

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        """Post once and return any response, also a redirect, which is not followed.

        Raises:
            DeliveryError: there was no response, or the URL is not allowed (`final`).
        """


class EmailSender(Protocol):
    """Sends e-mail from the address of the stage."""

    @property
    def is_configured(self) -> bool:
        """Whether this stage has a sender address."""

    def send(self, to: str, subject: str, text: str) -> None:
        """Send one message to one address.

        Raises:
            DeliveryError: the mail service did not accept it.
        """
