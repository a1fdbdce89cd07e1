"""In-memory adapters without a store: the clock, the queues and the sockets."""

from __future__ import annotations

import asyncio

import pytest

from chalicelib.adapters.memory.all import InMemoryAdapters, ManualClock, run_inline
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone
from chalicelib.domain.queues.lanes import VISIBILITY_TIMEOUT
from chalicelib.domain.queues.wakeup import WakeUp


def test_the_manual_clock_moves_only_on_advance_and_sleep() -> None:
    clock = ManualClock(start=1_000)

    clock.advance(1.5)
    clock.sleep(0.5)

    assert clock.now() == 3_000


def test_coroutines_wake_in_the_order_of_their_wake_times() -> None:
    """`run` jumps from one wake time to the next and takes no real time."""
    clock, woken = ManualClock(start=0), list[tuple[str, int]]()

    async def wait(name: str, *pauses: float) -> None:
        for pause in pauses:
            await clock.pause(pause)
            woken.append((name, clock.now()))

    async def both() -> None:
        await asyncio.gather(wait("slow", 3600.0, 0), wait("fast", 1.0, 2.0))

    asyncio.run(clock.run(both()))

    assert woken == [("fast", 1_000), ("fast", 3_000), ("slow", 3_600_000), ("slow", 3_600_000)]


def test_a_cancelled_pause_is_skipped_by_the_manual_clock() -> None:
    clock = ManualClock(start=0)

    async def work() -> int:
        cancelled = asyncio.ensure_future(clock.pause(5))
        await asyncio.sleep(0)
        cancelled.cancel()
        await clock.pause(9)
        return await run_inline(clock.now)

    assert asyncio.run(clock.run(work())) == 9_000


def test_a_received_message_is_hidden_until_its_visibility_timeout() -> None:
    """It returns with a new receipt unless it was acknowledged."""
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
def test_a_queue_delay_outside_zero_to_900_seconds_is_refused(delay: int) -> None:
    """The memory twin refuses what SQS would refuse."""
    with pytest.raises(ValueError, match="900"):
        InMemoryAdapters().queues.send("low", WakeUp("job_1", 1), "acme", delay=delay)


def test_memory_sockets_simulate_busy_and_closed_connections() -> None:
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
