"""Whom we write to, in memory: what was posted and mailed, and what is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chalicelib.domain.addresses import Network
from chalicelib.domain.delivery import Delivery
from chalicelib.domain.endpoint import endpoint_of
from chalicelib.domain.errors import NotSent, StaleVersion
from chalicelib.domain.job import Ms
from chalicelib.domain.recipients import AddressBook, Seal
from chalicelib.ports import Posted


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


class MemoryCorrespondence:
    def __init__(self) -> None:
        self._seals: dict[str, Seal] = {}
        self._books: dict[str, AddressBook] = {}
        self._lock = threading.Lock()

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> Seal | None:
        with self._lock:
            return self._seals.get(tenant)

    def create_signing_secrets(self, tenant: str, seal: Seal) -> Seal:
        with self._lock:
            return self._seals.setdefault(tenant, seal)

    def put_signing_secrets(self, tenant: str, seal: Seal) -> None:
        with self._lock:
            self._seals[tenant] = seal

    def allowlist(self, tenant: str, *, fresh: bool = False) -> AddressBook:
        with self._lock:
            return self._books.get(tenant, AddressBook())

    def put_allowlist(self, tenant: str, book: AddressBook) -> None:
        with self._lock:
            self._books[tenant] = book


@dataclass(frozen=True, slots=True)
class Letter:
    """A request as a receiver got it."""

    url: str
    body: bytes
    headers: Mapping[str, str]


class MemoryPoster:
    """`letters` is what arrived; `answer` says what a receiver does with one, and may raise `NotSent`."""

    def __init__(self, allowed: tuple[Network, ...] = ()) -> None:
        self.letters: list[Letter] = []
        self.answer: Callable[[Letter], Posted] = lambda _letter: Posted(204)
        self.allowed = allowed

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Posted:
        try:
            endpoint_of(url, self.allowed)
        except ValueError as exc:
            raise NotSent(f"the address {exc}", final=True) from exc
        letter = Letter(url, body, dict(headers))
        self.letters.append(letter)
        return self.answer(letter)


class MemoryMail:
    """`sent` is open to tests; without a sender nothing is sent."""

    def __init__(self, sender: str | None = "headrace@example.com") -> None:
        self.sender = sender
        self.sent: list[tuple[str, str, str]] = []

    @property
    def is_configured(self) -> bool:
        return self.sender is not None

    def send(self, to: str, subject: str, text: str) -> None:
        if self.sender is None:
            raise NotSent("e-mail is not configured for this stage", final=True)
        self.sent.append((to, subject, text))
