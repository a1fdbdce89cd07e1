"""The ports of a `World`, each call of which is a step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from chalicelib.domain.errors import ConnectionBusy, Throttled
from chalicelib.domain.jobs.job import Job, Status
from tests.faults.bridge import wait
from tests.faults.history import History
from tests.faults.steps import ACTOR, Steps


class Port:
    """A twin whose methods are steps when an actor calls them, and plain calls when a test does."""

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
        return wait(self._steps.take(f"{self._name}.{method}", args, effect, self.refusal))

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        return getattr(self._real, method)(*args, **named)


class JobsPort(Port):
    """The heads; `changed` is told of each swap that took effect, as the table's change stream is."""

    def __init__(self, real: Any, steps: Steps, history: History, changed: Callable[[Job | None, Job], None]) -> None:
        super().__init__("jobs", real, steps)
        self._history, self._changed = history, changed

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        if method not in ("create", "replace"):
            return super()._effect(method, *args, **named)
        new: Job = args[-1] if method == "replace" else args[0]
        before = self._real.heads.get(new.id)
        answer = super()._effect(method, *args, **named)
        actor = ACTOR.get()
        if self._real.heads.get(new.id) is not before:
            if before is None:
                self._history.made(new)
            else:
                self._history.wrote(before, new)
            self._changed(before, new)
            if actor is not None and new.status is Status.PROCESSING and (before is None or before.status is not Status.PROCESSING):
                actor.claims[new.id] = new.attempt
        return answer


class ResultsPort(Port):
    def __init__(self, real: Any, steps: Steps, history: History) -> None:
        super().__init__("results", real, steps)
        self._history = history

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        answer = super()._effect(method, *args, **named)
        if method.startswith("put") and self._real.get(args[0].job_id, args[0].attempt) == args[0]:
            self._history.kept(args[0])  # a row that gave way to that of a later claim was never there
        return answer


class CachePort(Port):
    """Whose answer serves again; the history is told who was told."""

    def __init__(self, real: Any, steps: Steps, history: History) -> None:
        super().__init__("cache", real, steps)
        self._history = history

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        answer, actor = super()._effect(method, *args, **named), ACTOR.get()
        source = self._history.answer_of(answer.job_id, answer.attempt) if answer is not None else None
        if actor is not None and source is not None:
            job_id = list(actor.claims)[-1]  # the only one that it has
            self._history.hit(job_id, actor.claims[job_id], source)
        return answer


class QueuesPort(Port):
    """The queues; `sent` rings when there is something new to receive."""

    def __init__(self, real: Any, steps: Steps, sent: asyncio.Event) -> None:
        super().__init__("queues", real, steps)
        self._sent = sent

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        answer = super()._effect(method, *args, **named)
        if method == "send":
            self._sent.set()
        return answer


class SocketsPort(Port):
    """The sockets; `carry` is the network behind them."""

    refusal = ConnectionBusy

    def __init__(self, real: Any, steps: Steps, carry: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__("sockets", real, steps)
        self._carry = carry

    def _effect(self, method: str, *args: Any, **named: Any) -> Any:
        answer = super()._effect(method, *args, **named)
        if method == "post":
            self._carry(args[1], json.loads(args[2]))
        return answer
