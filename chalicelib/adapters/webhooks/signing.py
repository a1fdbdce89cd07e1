"""Signatures by the Standard Webhooks specification, made with its own library."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from standardwebhooks import Webhook

from chalicelib.domain.units import Ms


def signed_headers(secrets: Iterable[str], message_id: str, now: Ms, payload: str) -> dict[str, str]:
    """Return the headers of a message, with one signature for each secret, the newest first."""
    at = datetime.fromtimestamp(now // 1000, UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now // 1000),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, payload) for secret in secrets),
    }
