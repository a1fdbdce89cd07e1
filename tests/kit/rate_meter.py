"""What an OpenAI with rate limits does: it counts, tells the limits in headers, and refuses what is above them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WINDOW_SECONDS = 60.0
BYTES_PER_TOKEN = 4


@dataclass
class RateMeter:
    """The limits of one model, as sliding windows of a minute. Every request counts, also a refused one, in `asked`."""

    requests: int
    tokens: int = 10**9
    asked: list[tuple[float, int]] = field(default_factory=list)  # when, by the monotonic clock, and the tokens
    accepted: list[tuple[float, int]] = field(default_factory=list)
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, body: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
        """Count a request. Returns why it is refused, or None, and the headers of the response."""
        cost = len(json.dumps(body)) // BYTES_PER_TOKEN + int(body.get("max_output_tokens") or 0)
        with self._lock:
            now = time.monotonic()
            self.asked.append((now, cost))
            recent = [entry for entry in self.accepted if now - entry[0] < WINDOW_SECONDS]
            used, used_tokens = len(recent), sum(tokens for _, tokens in recent)
            refusal = self._refusal(recent, used, used_tokens, cost, now)
            if refusal is None:
                self.accepted.append((now, cost))
            else:
                self.refused += 1
            return refusal, {
                "x-ratelimit-limit-requests": str(self.requests),
                "x-ratelimit-limit-tokens": str(self.tokens),
                "x-ratelimit-remaining-requests": str(max(0, self.requests - used - 1)),
                "x-ratelimit-remaining-tokens": str(max(0, self.tokens - used_tokens - cost)),
            }

    def set_requests(self, requests: int) -> None:
        with self._lock:
            self.requests = requests

    def _refusal(self, recent: list[tuple[float, int]], used: int, used_tokens: int, cost: int, now: float) -> str | None:
        wait = WINDOW_SECONDS - (now - recent[0][0]) if recent else 1.0
        again = f"Please try again in {max(0.1, wait):.3f}s."
        if used >= self.requests:
            return f"Rate limit reached on requests per min (RPM): Limit {self.requests}, Used {used}, Requested 1. {again}"
        if used_tokens + cost > self.tokens:
            return f"Rate limit reached on tokens per min (TPM): Limit {self.tokens}, Used {used_tokens}, Requested {cost}. {again}"
        return None


def busiest_minute(events: list[tuple[float, int]], *, tokens: bool = False, since: float = 0.0) -> int:
    """Return the most requests, or tokens, in any sliding minute."""
    counted = [(at, cost if tokens else 1) for at, cost in events if at >= since]
    most, total, first = 0, 0, 0
    for at, cost in counted:
        total += cost
        while at - counted[first][0] >= WINDOW_SECONDS:
            total -= counted[first][1]
            first += 1
        most = max(most, total)
    return most
