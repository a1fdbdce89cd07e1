"""The parts of the twins that have no store behind them: time, messages, frames."""

from __future__ import annotations

import asyncio

import pytest

from chalicelib.adapters.memory.all import InMemoryAdapters, ManualClock, run_inline
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone
from chalicelib.domain.queues.lanes import VISIBILITY_TIMEOUT
from chalicelib.domain.queues.wakeup import WakeUp


def test_time_moves_only_when_told() -> None:
    """Sleeping is moving it, in code that is not asynchronous."""
    clock = ManualClock(start=1_000)

    clock.advance(1.5)
    clock.sleep(0.5)

    assert clock.now() == 3_000


def test_coroutines_wake_in_the_order_of_their_time() -> None:
    """`run` jumps from one that is due to the next, and takes no real time."""
    clock, woken = ManualClock(start=0), list[tuple[str, int]]()

    async def wait(name: str, *pauses: float) -> None:
        for pause in pauses:
            await clock.pause(pause)
            woken.append((name, clock.now()))

    async def both() -> None:
        await asyncio.gather(wait("slow", 3600.0, 0), wait("fast", 1.0, 2.0))

    asyncio.run(clock.run(both()))

    assert woken == [("fast", 1_000), ("fast", 3_000), ("slow", 3_600_000), ("slow", 3_600_000)]


def test_a_wait_that_was_given_up_holds_nobody_up() -> None:
    """A cancelled pause is skipped; its time does not pass."""
    clock = ManualClock(start=0)

    async def work() -> int:
        given_up = asyncio.ensure_future(clock.pause(5))
        await asyncio.sleep(0)
        given_up.cancel()
        await clock.pause(9)
        return await run_inline(clock.now)

    assert asyncio.run(clock.run(work())) == 9_000


def test_a_message_is_hidden_while_it_is_worked_on() -> None:
    """It comes back, with another receipt, unless it was acknowledged; a delayed one comes when its time has come."""
    memory = InMemoryAdapters()
    wake_up = WakeUp(f"job_{1:026}", 1)
    memory.queues.send("high", wake_up, "acme")
    memory.queues.send("high", WakeUp(f"job_{2:026}", 1), "acme", delay=900)

    assert memory.queues.depth("high") == 1
    (first,) = memory.queues.receive("high")
    assert memory.queues.receive("high") == []
    memory.clock.advance(VISIBILITY_TIMEOUT)
    again, delayed = memory.queues.receive("high")
    memory.queues.acknowledge("high", [again.receipt])

    assert WakeUp.from_json(first.body) == WakeUp.from_json(again.body) == wake_up
    assert (first.id, first.receipt == again.receipt) == (again.id, False)
    assert [message.id for message in memory.queues.messages["high"]] == [delayed.id]
    assert memory.queues.depth("high") == 0


@pytest.mark.parametrize("delay", [-1, 901])
def test_sqs_delays_no_longer_than_a_quarter_of_an_hour(delay: int) -> None:
    """The twin refuses what SQS would refuse."""
    with pytest.raises(ValueError, match="900"):
        InMemoryAdapters().queues.send("low", WakeUp("job_1", 1), "acme", delay=delay)


def test_sockets_refuse_when_told_to() -> None:
    """Busy for so many posts, gone for good."""
    sockets = InMemoryAdapters().sockets
    sockets.busy["a"] = 1
    with pytest.raises(ConnectionBusy):
        sockets.post("e", "a", b'{"event": "tokens"}')
    sockets.post("e", "a", b'{"event": "tokens"}')
    sockets.post("e", "a", b'{"event": "reset"}')
    sockets.close("e", "a")

    with pytest.raises(ConnectionGone):
        sockets.post("e", "a", b"{}")
    assert sockets.events("a", ["reset"]) == [{"event": "reset"}]
    assert len(sockets.events("a")) == 2
