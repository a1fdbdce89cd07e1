"""Rates in memory."""

from __future__ import annotations

import threading
from dataclasses import replace

from chalicelib.adapters.memory.record_table import RecordTable
from chalicelib.domain.limits.rate_limit import RateLimit
from chalicelib.domain.limits.sliding_window import Frame, minute_of, minutes_of
from chalicelib.domain.units import Ms


class MemoryRates:
    """Tests may use `stored`, the frames by account, model, window and minute."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, int, int], Frame] = {}
        self._limits: RecordTable[tuple[str, str], RateLimit] = RecordTable(lambda one: (one.account, one.model), absent_version=0)
        self._lock = threading.Lock()
        self.save_limit = self._limits.replace

    def take(self, account: str, model: str, tokens: int, requests: int, at: Ms, window: int = 0) -> tuple[Frame, ...]:
        with self._lock:
            self._add(account, model, tokens, requests, at, window)
            return self._needed(account, model, at, window)

    def give_back(self, account: str, model: str, tokens: int, requests: int, at: Ms, window: int = 0) -> None:
        with self._lock:
            self._add(account, model, -tokens, -requests, at, window)

    def frames(self, account: str, model: str, at: Ms, window: int = 0) -> tuple[Frame, ...]:
        with self._lock:
            return self._needed(account, model, at, window)

    def limits(self) -> list[RateLimit]:
        return self._limits.select(lambda _: True, lambda one: (one.account, one.model))

    def limit(self, account: str, model: str) -> RateLimit | None:
        return self._limits.get((account, model))

    def _add(self, account: str, model: str, tokens: int, requests: int, at: Ms, window: int) -> None:
        minute, second = minute_of(at)
        key = account, model, window, minute
        self.stored[key] = self.stored.get(key, Frame(minute)).added(second, requests, tokens)

    def _needed(self, account: str, model: str, at: Ms, window: int) -> tuple[Frame, ...]:
        stored = (self.stored.get((account, model, window, minute)) for minute in minutes_of(at))
        return tuple(_shown(frame) for frame in stored if frame is not None)


def _shown(frame: Frame) -> Frame:
    """A number below zero counts as none, as in the real store."""
    return replace(frame, requests=tuple(max(0, one) for one in frame.requests), tokens=tuple(max(0, one) for one in frame.tokens))
