"""JSON of deliveries. The field names are public: see docs/api.md."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.notifications.delivery import Delivery, DeliveryAttempt
from chalicelib.domain.units import rfc3339, seconds


def delivery_shape(delivery: Delivery) -> dict[str, Any]:
    """A delivery with its attempts."""
    return {
        "delivery_id": delivery.id,
        "channel": delivery.channel.value,
        "address": delivery.address,
        "event": delivery.event,
        "message_id": delivery.message_id,
        "status": delivery.state.value,
        "attempts": [_attempt(attempt) for attempt in delivery.attempts],
        "next_attempt_at": rfc3339(delivery.due_at) if delivery.is_open else None,
        "created_at": rfc3339(delivery.created_at),
        "finished_at": rfc3339(delivery.ended_at),
    }


def _attempt(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {
        "at": rfc3339(attempt.at),
        "duration_seconds": seconds(attempt.ms),
        "status_code": attempt.status,
        "error": attempt.error,
    }
