"""Deliveries as answers show them. Names here are promises: see docs/api.md."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.notifications.delivery import Delivery, DeliveryAttempt
from chalicelib.domain.units import rfc3339, seconds


def delivery(sent: Delivery) -> dict[str, Any]:
    """A delivery as answers show it."""
    return {
        "delivery_id": sent.id,
        "channel": sent.channel.value,
        "address": sent.address,
        "event": sent.event,
        "message_id": sent.message_id,
        "status": sent.state.value,
        "attempts": [_attempt(one) for one in sent.attempts],
        "next_attempt_at": rfc3339(sent.due_at) if sent.is_open else None,
        "created_at": rfc3339(sent.created_at),
        "finished_at": rfc3339(sent.ended_at),
    }


def _attempt(one: DeliveryAttempt) -> dict[str, Any]:
    return {"at": rfc3339(one.at), "duration_seconds": seconds(one.ms), "status_code": one.status, "error": one.error}
