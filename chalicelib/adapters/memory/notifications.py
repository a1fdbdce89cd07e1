"""Whom we write to, in memory: what was posted and mailed, and what is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chalicelib.domain.errors import DeliveryError, StaleVersion
from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.domain.notifications.network_policy import Network
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.notifications.webhook_url import parse_webhook_url
from chalicelib.domain.units import Ms
from chalicelib.ports import WebhookResponse


class MemoryDeliveries:
    """`rows` is open to tests."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Delivery] = {}
        self._lock = threading.Lock()

    def create(self, delivery: Delivery) -> Delivery:
        with self._lock:
            return self.rows.setdefault((delivery.owner, delivery.id), delivery)

    def get(self, owner: str, delivery_id: str) -> Delivery | None:
        with self._lock:
            return self.rows.get((owner, delivery_id))

    def for_owner(self, owner: str) -> list[Delivery]:
        with self._lock:
            found = [delivery for delivery in self.rows.values() if delivery.owner == owner]
        return sorted(found, key=lambda one: (-one.created_at, one.id))[:100]

    def replace(self, seen: Delivery, new: Delivery) -> None:
        with self._lock:
            current = self.rows.get((seen.owner, seen.id))
            if current == new:
                return
            if current is None or current.version != seen.version:
                raise StaleVersion(current)
            self.rows[seen.owner, seen.id] = new

    def due(self, until: Ms, limit: int) -> list[Delivery]:
        with self._lock:
            found = [delivery for delivery in self.rows.values() if delivery.is_open and delivery.recheck_at <= until]
        return sorted(found, key=lambda one: one.recheck_at)[:limit]


class MemoryNotificationSettings:
    def __init__(self) -> None:
        self._seals: dict[str, SigningSecrets] = {}
        self._books: dict[str, RecipientAllowlist] = {}
        self._lock = threading.Lock()

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> SigningSecrets | None:
        with self._lock:
            return self._seals.get(tenant)

    def create_signing_secrets(self, tenant: str, seal: SigningSecrets) -> SigningSecrets:
        with self._lock:
            return self._seals.setdefault(tenant, seal)

    def put_signing_secrets(self, tenant: str, seal: SigningSecrets) -> None:
        with self._lock:
            self._seals[tenant] = seal

    def allowlist(self, tenant: str, *, fresh: bool = False) -> RecipientAllowlist:
        with self._lock:
            return self._books.get(tenant, RecipientAllowlist())

    def put_allowlist(self, tenant: str, book: RecipientAllowlist) -> None:
        with self._lock:
            self._books[tenant] = book


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as a receiver got it."""

    url: str
    body: bytes
    headers: Mapping[str, str]


class MemoryWebhookClient:
    """`letters` is what arrived; `answer` says what a receiver does with one, and may raise `NotSent`."""

    def __init__(self, allowed: tuple[Network, ...] = ()) -> None:
        self.letters: list[ReceivedRequest] = []
        self.answer: Callable[[ReceivedRequest], WebhookResponse] = lambda _letter: WebhookResponse(204)
        self.allowed = allowed

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        try:
            parse_webhook_url(url, self.allowed)
        except ValueError as exc:
            raise DeliveryError(f"the address {exc}", final=True) from exc
        letter = ReceivedRequest(url, body, dict(headers))
        self.letters.append(letter)
        return self.answer(letter)


class MemoryEmailSender:
    """`sent` is open to tests; without a sender nothing is sent."""

    def __init__(self, sender: str | None = "headrace@example.com") -> None:
        self.sender = sender
        self.sent: list[tuple[str, str, str]] = []

    @property
    def is_configured(self) -> bool:
        return self.sender is not None

    def send(self, to: str, subject: str, text: str) -> None:
        if self.sender is None:
            raise DeliveryError("e-mail is not configured for this stage", final=True)
        self.sent.append((to, subject, text))
