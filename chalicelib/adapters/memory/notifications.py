"""Notifications in memory: deliveries, settings, and the requests and e-mails that were sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from chalicelib.adapters.memory.record_table import RecordTable
from chalicelib.domain.errors import DeliveryError
from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.domain.notifications.network_policy import Network
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.notifications.webhook_url import parse_webhook_url
from chalicelib.domain.units import Ms
from chalicelib.ports import WebhookResponse
from chalicelib.ports.notifications import DELIVERY_SHARDS, DueDelivery


class MemoryDeliveries:
    """Tests may use `rows`, the deliveries by (owner, id)."""

    def __init__(self) -> None:
        self._table: RecordTable[tuple[str, str], Delivery] = RecordTable(lambda delivery: (delivery.owner, delivery.id))
        self.rows = self._table.rows
        self.create, self.replace = self._table.create, self._table.replace

    def get(self, owner: str, delivery_id: str) -> Delivery | None:
        return self._table.get((owner, delivery_id))

    def for_owner(self, owner: str) -> list[Delivery]:
        return self._table.select(lambda delivery: delivery.owner == owner, lambda one: (-one.created_at, one.id))[:100]

    def due(self, shard: int, until: Ms, after: str | None, limit: int) -> tuple[list[DueDelivery], str | None]:
        wanted = self._table.select(lambda one: one.is_open and one.recheck_at <= until and _shard(one) == shard, _index_key)
        page = [one for one in wanted if after is None or _index_key(one) > after][:limit]
        due = [DueDelivery(one.recheck_at, one.owner, one.id, one.tenant) for one in page]
        return due, _index_key(page[-1]) if len(page) == limit else None

    def load_due(self, due: Sequence[DueDelivery], now: Ms) -> list[Delivery]:
        found = [(one.recheck_at, self.get(one.owner, one.delivery_id)) for one in due]
        return [delivery for at, delivery in found if delivery is not None and delivery.is_open and delivery.recheck_at == at]


def _shard(delivery: Delivery) -> int:
    return crc32(delivery.id.encode()) % DELIVERY_SHARDS


def _index_key(delivery: Delivery) -> str:
    return f"{delivery.recheck_at:014d}#{delivery.owner}#{delivery.id}"


class MemorySecretVersions:
    """Tests may use `versions`, by the name of the secret."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}

    def get(self, name: str, *, consistent: bool = False) -> str | None:
        return self.versions.get(name)

    def put(self, name: str, version: str) -> None:
        self.versions[name] = version


class MemoryNotificationSettings:
    def __init__(self) -> None:
        self._secrets: dict[str, SigningSecrets] = {}
        self._allowlists: dict[str, RecipientAllowlist] = {}
        self._lock = threading.Lock()

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> SigningSecrets | None:
        with self._lock:
            return self._secrets.get(tenant)

    def create_signing_secrets(self, tenant: str, secrets: SigningSecrets) -> SigningSecrets:
        with self._lock:
            return self._secrets.setdefault(tenant, secrets)

    def put_signing_secrets(self, tenant: str, secrets: SigningSecrets) -> None:
        with self._lock:
            self._secrets[tenant] = secrets

    def allowlist(self, tenant: str, *, fresh: bool = False) -> RecipientAllowlist:
        with self._lock:
            return self._allowlists.get(tenant, RecipientAllowlist())

    def put_allowlist(self, tenant: str, allowlist: RecipientAllowlist) -> None:
        with self._lock:
            self._allowlists[tenant] = allowlist


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as the receiver got it."""

    url: str
    body: bytes
    headers: Mapping[str, str]


class MemoryWebhookClient:
    """`requests` are the requests that arrived.

    `answer` computes the response of the receiver and may raise `DeliveryError`.
    """

    def __init__(self, allowed: tuple[Network, ...] = ()) -> None:
        self.requests: list[ReceivedRequest] = []
        self.answer: Callable[[ReceivedRequest], WebhookResponse] = lambda _request: WebhookResponse(204)
        self.allowed = allowed

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        try:
            parse_webhook_url(url, self.allowed)
        except ValueError as exc:
            raise DeliveryError(f"the address {exc}", final=True) from exc
        request = ReceivedRequest(url, body, dict(headers))
        self.requests.append(request)
        return self.answer(request)


class MemoryEmailSender:
    """Tests may use `sent`, the messages as (to, subject, text). Without a sender nothing is sent."""

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
