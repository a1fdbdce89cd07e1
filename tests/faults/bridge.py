"""Run synchronous code in a greenlet, so that its port calls can suspend the current coroutine.

Calls interleave as those of threads do, but in the same order in every run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


async def run_in_greenlet(call: Callable[..., T], *args: Any) -> T:
    """Run synchronous `call`. Where it calls `wait`, this coroutine awaits, and other tasks run."""
    parent = getcurrent()
    child = greenlet(call, parent)
    child.gr_context = parent.gr_context
    value = child.switch(*args)
    while not child.dead:
        try:
            result = await value
        except BaseException as exc:  # noqa: BLE001 - raised again in the code that waits
            value = child.throw(exc)
        else:
            value = child.switch(result)
    return value  # type: ignore[no-any-return]


def wait(work: Awaitable[T]) -> T:
    """Await `work` from synchronous code that `run_in_greenlet` runs."""
    child = getcurrent()
    assert child.parent is not None, "only code in a greenlet of run_in_greenlet can wait"
    return child.parent.switch(work)  # type: ignore[no-any-return]
