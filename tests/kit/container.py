"""The container of the tests: the real one with the in-memory twins as ports."""

from __future__ import annotations

import copy
from typing import Any

from chalicelib.adapters.memory.all import InMemoryAdapters, ManualClock, run_inline
from chalicelib.adapters.runtime.threads import serial_map
from chalicelib.bootstrap import Container
from chalicelib.domain.ids import batch_id
from chalicelib.observability import record
from chalicelib.settings import Settings
from tests.kit.provider import Script, ScriptedProvider
from tests.kit.time import JumpingLoop

API_URL = "https://api.example/api"


class InlineLoop:
    """The worker loop in virtual time: a pause takes no real time."""

    def __init__(self, loop: JumpingLoop | None = None) -> None:
        self._loop = loop or JumpingLoop()

    def run(self, work: Any) -> None:
        self._loop.run_until_complete(work)


class InMemoryContainer(InMemoryAdapters, Container):
    """A `Container` on in-memory twins.

    Ids count up; the last five digits are zero, because row ids of a batch use them.
    """

    offload: Any = staticmethod(run_inline)
    offload_sends: Any = staticmethod(run_inline)
    parallel_map: Any = staticmethod(serial_map)

    def __init__(self, *scripts: Script, clock: ManualClock | None = None, loop: JumpingLoop | None = None) -> None:
        InMemoryAdapters.__init__(self, clock=clock or ManualClock())
        self.jobs.shards_of = self.shards_of
        self.settings = Settings(requests_per_minute=600)
        self.stage = self.settings.stage
        self.provider = ScriptedProvider(*scripts)
        self.worker_loop: Any = InlineLoop(loop)
        self.endpoints = {"ws_url": "wss://ws.example/api", "api_url": API_URL}
        self.log_lines: list[tuple[str, dict[str, Any]]] | None = None
        self._ids = iter(range(1, 10**9))

    def new_id(self) -> str:  # type: ignore[override]
        return f"{next(self._ids):021d}00000"

    def new_batch_id(self) -> str:  # type: ignore[override]
        return batch_id(self.new_id())

    def log(self, fact: str, **fields: Any) -> None:
        """Append the event to `log_lines` if a test has set it; otherwise log it."""
        if self.log_lines is None:
            record(fact, **fields)
        else:
            self.log_lines.append((fact, fields))

    def with_changes(self, **members: Any) -> Any:
        """Return a copy with these members replaced."""
        changed = copy.copy(self)
        vars(changed).update(members)
        return changed
