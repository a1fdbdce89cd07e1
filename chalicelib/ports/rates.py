"""Rate limits towards the provider: what they are, and what was started in the last minutes."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.limits.rate_limit import RateLimit
from chalicelib.domain.limits.sliding_window import Frame
from chalicelib.domain.units import Ms


class Rates(Protocol):
    """Stores the frames and the limits of each model of an account.

    An account is what the provider's limits are about, as short text without `#`. Several
    `windows` of a model are counted apart, and each has its part of the limits; one is enough for
    some six hundred asks a second.
    """

    def take(self, account: str, model: str, tokens: int, requests: int, at: Ms, window: int = 0) -> tuple[Frame, ...]:
        """Count requests, with their tokens in all, in the second of `at`.

        Returns: the frames that an ask at this time needs, the counted ones included, the current
            one last. Frames without anything may be left out.

        One request; another one in the first and last seconds of a minute. If the answer is lost it
        may count twice, which errs to the safe side.
        """

    def give_back(self, account: str, model: str, tokens: int, requests: int, at: Ms, window: int = 0) -> None:
        """Take requests off the second in which they were counted: they did not start.

        Tried once: a repetition might take them off twice. Without it they count for a minute.
        """

    def frames(self, account: str, model: str, at: Ms, window: int = 0) -> tuple[Frame, ...]:
        """Return the frames that an ask at this time needs, read consistently."""

    def limits(self) -> list[RateLimit]:
        """Return the limits of all models that are stored and can be read, not read consistently."""

    def limit(self, account: str, model: str) -> RateLimit | None:
        """Return the limits of one model, read consistently."""

    def save_limit(self, seen: RateLimit, new: RateLimit) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen` (0: none is stored).

        A repeated swap succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored one.
        """
