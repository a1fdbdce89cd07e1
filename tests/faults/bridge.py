"""Synchronous code whose every call of a port is a point where others may run: as with threads, but in an order that is always the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


async def as_if_on_a_thread(call: Callable[..., T], *args: Any) -> T:
    """Run synchronous `call`; wherever it says `wait`, this coroutine waits, and everything else goes on."""
    here = getcurrent()
    thread = greenlet(call, here)
    thread.gr_context = here.gr_context
    said = thread.switch(*args)
    while not thread.dead:
        try:
            answer = await said
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it belongs to the code that waits
            said = thread.throw(exc)
        else:
            said = thread.switch(answer)
    return said  # type: ignore[no-any-return]


def wait(work: Awaitable[T]) -> T:
    """Wait, in synchronous code that runs `as_if_on_a_thread`."""
    here = getcurrent()
    assert here.parent is not None, "only code that runs as if on a thread can wait"
    return here.parent.switch(work)  # type: ignore[no-any-return]
