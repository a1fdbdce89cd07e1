"""The provider of a simulation: it counts what reaches it, and refuses what is above its own bucket."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

from chalicelib.domain.rate_headers import LimitHeaders, RateHeaders, Refusal


@dataclass
class Provider:
    """A bucket that holds a minute's requests and tokens and fills evenly, as OpenAI's."""

    requests: float | None
    tokens: float | None
    enforces: bool = False  # refuses what its bucket does not hold
    tells: str = "header"  # what tells of a lowered limit: `header`, `message` or `bare`
    refused: int = 0
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # time, tokens; also of what it refused
    _level: dict[str, float] = field(default_factory=dict)
    _filled_at: float = 0.0

    def ask(self, now: float, tokens: int) -> Refusal | None:
        """Receive a request. Returns: its refusal; None: it is answered."""
        self.arrivals.append((now, tokens))
        if not self.enforces:
            return None
        own = {"requests": (1.0, self.requests), "tokens": (float(tokens), self.tokens)}
        for kind, (_, limit) in own.items():
            if limit is not None:
                self._level[kind] = min(limit, self._level.get(kind, limit) + (now - self._filled_at) * limit / 60)
        self._filled_at = now
        for kind, (cost, limit) in own.items():
            if limit is not None and self._level[kind] < cost:
                self.refused += 1
                wait = round(1000 * (cost - self._level[kind]) * 60 / limit)
                return Refusal(kind=kind, limit=round(limit), wait=wait) if self.tells == "message" else Refusal()
        for kind, (cost, limit) in own.items():
            if limit is not None:
                self._level[kind] -= cost
        return None

    def headers(self) -> RateHeaders:
        """Return the headers of an answer; none if the provider sends none."""
        if self.tells != "header":
            return RateHeaders()
        told = {}
        for kind, limit in (("requests", self.requests), ("tokens", self.tokens)):
            level = self._level.get(kind, limit or 0.0) if self.enforces else limit
            told[kind] = LimitHeaders(limit=round(limit), remaining=int(level or 0)) if limit else LimitHeaders()
        return RateHeaders(**told)

    def most_in_a_minute(self, since: float, until: float) -> tuple[int, int]:
        """Return the most requests and tokens of any sliding minute that lies within a time."""
        seen = [(at, tokens) for at, tokens in sorted(self.arrivals) if since <= at < until]
        times, sums = [at for at, _ in seen], [0, *accumulate(tokens for _, tokens in seen)]
        requests = tokens = 0
        for first, at in enumerate(times):
            after = bisect_left(times, at + 60.0)
            requests, tokens = max(requests, after - first), max(tokens, sums[after] - sums[first])
        return requests, tokens

    def received(self, since: float, until: float) -> tuple[int, int]:
        """Return the requests and tokens of a time."""
        seen = [tokens for at, tokens in self.arrivals if since <= at < until]
        return len(seen), sum(seen)
