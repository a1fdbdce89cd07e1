"""Change a versioned record: write it if it is unchanged, and decide again if it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from chalicelib.domain.errors import StaleVersion, Throttled, Unavailable

T = TypeVar("T")
MAX_ATTEMPTS = 10  # each lost attempt means that another writer changed the record


def update(replace: Callable[[T, T], Any], seen: T, change: Callable[[T], T | None], *, missing: T | None = None) -> T | None:
    """Write `change(seen)` with `replace(seen, new)`, deciding again on a newer record if it is
    stale.

    Args:
        replace: writes `new` only over `seen`; raises `StaleVersion` with the current record.
        change: the new record; the same object if there is nothing to write, None if the change is
            not allowed.
        missing: stands for a record that is not stored; without it a missing record ends the update
            with None.

    Returns: the record as it is now, or None if `change` did not allow it or the record is gone.

    Raises:
        Throttled: other writers came first ten times in a row.
        Unavailable: the store did not answer; the write may or may not have happened.
    """
    for _ in range(MAX_ATTEMPTS):
        new = change(seen)
        if new is None or new is seen:
            return new
        try:
            replace(seen, new)
        except StaleVersion as stale:
            current: T | None = stale.current if stale.current is not None else missing
            if current is None:
                return None
            seen = current
        else:
            return new
    raise Throttled


async def update_async(
    replace: Callable[[T, T], Awaitable[Any]],
    seen: T,
    change: Callable[[T], T | None],
    *,
    missing: T,
    attempts: int = MAX_ATTEMPTS,
    pause: Callable[[], float] = lambda: 0.0,
) -> tuple[T, T]:
    """Like `update`, for event loops. A write whose response was lost is repeated; that is safe.

    Args:
        pause: seconds to wait after a lost attempt; random, so that writers who collided do not
            collide again.

    Returns: the record before and after; the same object twice if nothing was written.

    Raises:
        Throttled: every attempt was lost.
    """
    for _ in range(attempts):
        new = change(seen)
        if new is None or new is seen:
            return seen, seen
        try:
            await replace(seen, new)
        except StaleVersion as stale:
            seen = stale.current if stale.current is not None else missing
            await asyncio.sleep(pause())
        except Unavailable:  # the same write again finds out whether this one had its effect
            await asyncio.sleep(pause())
        else:
            return seen, new
    raise Throttled
