"""Patience with a store that does not answer, while a batch of the change stream waits."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.job import Ms
from chalicelib.ports import Clock

PAUSES = (0.2, 0.5, 1.0)  # seconds between tries while a store does not answer


def patiently(clock: Clock, call: Callable[[], object], until: Ms) -> None:
    """Call again where a store did not answer: one throttle must not cost the watchers of a job its end.

    Raises:
        Unavailable: the store stayed away, or `until` has come.
    """
    for pause in PAUSES:
        try:
            call()
        except Unavailable:
            if clock.now() + round(pause * 1000) > until:
                raise
            clock.sleep(pause)
        else:
            return
    call()
