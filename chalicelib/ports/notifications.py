"""Notifications: deliveries, their recipients and signing secrets, and the clients that send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.units import Ms

DELIVERY_SHARDS = 4  # of the index of open deliveries


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A row of the index of open deliveries: which one the sweeper checks, and when."""

    recheck_at: Ms
    owner: str
    delivery_id: str
    tenant: str | None  # None: another version of the code wrote the row


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

    def due(self, shard: int, until: Ms, after: str | None, limit: int) -> tuple[list[DueDelivery], str | None]:
        """Return index rows of open deliveries with `recheck_at` up to `until`, oldest first.

        Args:
            shard: 0 to `DELIVERY_SHARDS` - 1.
            after: where the page before ended; None: the first page.

        Returns:
            At most `limit` rows, and where to continue `after`; None: the end. One request. Unreadable
            ones are left out.
        """

    def load_due(self, due: Sequence[DueDelivery], now: Ms) -> list[Delivery]:
        """Return the open deliveries that these rows name, read consistently.

        Rows whose delivery has ended, or is to be checked at another time, are removed. One request
        for each hundred.
        """


class SecretVersions(Protocol):
    """Stores which version of a secret is current, so that the secret is read only after a change."""

    def get(self, name: str, *, consistent: bool = False) -> str | None:
        """Return the current version of the secret of that name; None if none was ever stored."""

    def put(self, name: str, version: str) -> None:
        """Say which version is current."""


class NotificationSettings(Protocol):
    """Stores each tenant's signing secrets and recipient allowlist.

    A change reaches every process within a minute, and at once those that ask for it `fresh`.
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
            DeliveryError: there was no response, or the URL is not allowed (`final`), or its host's
                name resolved to an address that is not (`forbidden`).
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
