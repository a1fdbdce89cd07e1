"""The ports of a `World`. Each call of them is a step."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from chalicelib.domain.errors import ConnectionBusy, Throttled
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import counted_by
from tests.faults.bridge import wait
from tests.faults.history import History
from tests.faults.steps import ACTOR, Steps


class StepPort:
    """An in-memory twin.

    Its methods are steps if an actor calls them, and plain calls in a test.
    """

    refusal: type[Exception] = Throttled

    def __init__(self, name: str, real: Any, steps: Steps) -> None:
        self._name, self._real, self._steps = name, real, steps

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._real, method)
        return partial(self._call, method) if callable(real) else real

    def _call(self, method: str, *args: Any, **named: Any) -> Any:
        effect = partial(self._effect, method, *args, **named)
        if ACTOR.get() is None:
            return effect()
        return wait(self._steps.perform(f"{self._name}.{method}", args, effect, self.refusal))

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        return getattr(self._real, method)(*args, **named)


class JobsStepPort(StepPort):
    """The job records.

    `on_change` gets each write that took effect, as the table's change stream does.
    """

    def __init__(self, real: Any, steps: Steps, history: History, on_change: Callable[[Job | None, Job], None]) -> None:
        super().__init__("jobs", real, steps)
        self._history, self._on_change = history, on_change

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        if method not in ("create", "replace"):
            return super()._effect(method, *args, **named)
        new: Job = args[-1] if method == "replace" else args[0]
        before = self._real.records.get(new.id)
        value = super()._effect(method, *args, **named)
        actor = ACTOR.get()
        if self._real.records.get(new.id) is not before:
            if before is None:
                self._history.record_creation(new)
            else:
                self._history.record_replace(before, new)
            self._on_change(before, new)
            self._check_slots()
            if actor is not None and new.status is Status.PROCESSING and (before is None or before.status is not Status.PROCESSING):
                actor.claims[new.id] = new.attempt
        return value

    def _check_slots(self) -> None:
        """As many slots and places are taken as jobs say that they have, after every write."""
        held = Counter(key for job in self._real.records.values() for key in counted_by(job))
        taken = +self._real.slots
        if held != taken:
            self._history.problems.append(f"slots are taken {dict(taken)}, jobs have {dict(held)}")


class ResultsStepPort(StepPort):
    def __init__(self, real: Any, steps: Steps, history: History) -> None:
        super().__init__("results", real, steps)
        self._history = history

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        value = super()._effect(method, *args, **named)
        if method.startswith("put") and self._real.get(args[0].job_id, args[0].attempt) == args[0]:
            self._history.record_result(args[0])  # not the result of an earlier claim, which the store ignores
        return value


class CacheStepPort(StepPort):
    """The response cache. The history records each hit."""

    def __init__(self, real: Any, steps: Steps, history: History) -> None:
        super().__init__("cache", real, steps)
        self._history = history

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        value, actor = super()._effect(method, *args, **named), ACTOR.get()
        source = self._history.response_of(value.job_id, value.attempt) if value is not None else None
        if actor is not None and source is not None:
            job_id = list(actor.claims)[-1]  # the worker's only job
            self._history.record_cache_hit(job_id, actor.claims[job_id], source)
        return value


class QueuesStepPort(StepPort):
    """The queues. `sent` is set when there is a new wake-up to receive, `task_sent` when there is a new task."""

    def __init__(self, real: Any, steps: Steps, sent: asyncio.Event) -> None:
        super().__init__("queues", real, steps)
        self._sent = sent
        self.task_sent = asyncio.Event()

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        value = super()._effect(method, *args, **named)
        if method in ("send", "send_released", "send_task"):
            self._sent.set()
        if method == "send_task":
            self.task_sent.set()
        return value


class LinesStepPort(StepPort):
    """The lines. The sweep reads all buckets each minute; only the first one and those with lines are
    steps, or most steps of a run would be such reads.
    """

    def _call(self, method: str, *args: Any, **named: Any) -> Any:
        actor = ACTOR.get()
        if method == "rows" and actor is not None and actor.role == "sweep_lines" and args[0] > 0 and not self._real.rows(*args):
            return []
        return super()._call(method, *args, **named)


class SocketsStepPort(StepPort):
    """The WebSocket connections. `transmit` is the network behind them."""

    refusal = ConnectionBusy

    def __init__(self, real: Any, steps: Steps, transmit: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__("sockets", real, steps)
        self._transmit = transmit

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        value = super()._effect(method, *args, **named)
        if method == "post":
            self._transmit(args[1], json.loads(args[2]))
        return value
