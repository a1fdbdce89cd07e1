"""Every call of a port and every event of the provider as a numbered step, at which something may go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from chalicelib.domain.errors import Unavailable

LATENCY = 0.01  # seconds to a store, and as many back: time in which others act


class Killed(BaseException):
    """The process is gone. Not an `Exception`, so that nothing in it goes on as if a call had failed."""


class Kind(StrEnum):
    """What goes wrong at a step."""

    DIES_BEFORE = "the process dies before the effect"
    DIES_AFTER = "the process dies after the effect"
    REPEATED = "the answer is lost, the SDK repeats the call"
    REFUSED = "refused once, without effect"
    UNANSWERED = "the effect happens, no answer comes"
    FREEZES_BEFORE = "the process freezes before the effect, beyond its lease"
    FREEZES_AFTER = "the process freezes after the effect, beyond its lease"


FREEZES = (Kind.FREEZES_BEFORE, Kind.FREEZES_AFTER)
FROZEN_SECONDS = 130.0


@dataclass(frozen=True)
class Fault:
    """`kind` happens at step number `step`."""

    step: int
    kind: Kind


@dataclass(eq=False)
class Actor:
    """One process: an invocation of a worker, a request to the API, a run of the sweep. `claims` are the attempts that it took, by job."""

    name: str
    root: asyncio.Task[Any] | None = None
    dead: bool = False
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    threads: set[asyncio.Task[Any]] = field(default_factory=set)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    claims: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.awake.set()

    @property
    def role(self) -> str:
        return self.name.split()[0]


ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)


@dataclass(eq=False)
class Step:
    """One call, as it is printed when something was wrong."""

    number: int
    at: float
    actor: Actor
    name: str
    args: Sequence[Any]
    came: str = ""

    @property
    def refusable(self) -> bool:
        return self.name != "provider.close"

    @property
    def repeatable(self) -> bool:
        return not self.name.startswith("provider.")  # the adapter never repeats a request that costs money

    def __str__(self) -> str:
        return f"{self.number:4} {self.at:8.2f} {self.actor.name:<10} {self.name} {_brief(self.name, self.args)}{self.came}"


class Director(Protocol):
    """Decides when a step may go on: a test that wants an order of its own."""

    async def before(self, step: Step) -> None: ...

    async def after(self, step: Step) -> None: ...


class Steps:
    """Numbers the steps of a run, and does to them what the faults say. `trace` is the run so far."""

    def __init__(self, faults: Sequence[Fault] = (), director: Director | None = None) -> None:
        self.faults = {fault.step: fault.kind for fault in faults}
        self.director = director
        self.trace: list[Step] = []

    async def take(self, name: str, args: Sequence[Any], effect: Callable[[], Any], refusal: type[Exception] = Unavailable) -> Any:
        """One step of the actor that asks: to the store, the effect, and back."""
        actor = ACTOR.get()
        assert actor is not None
        await self._travel(actor)
        step = Step(len(self.trace) + 1, asyncio.get_running_loop().time(), actor, name, args)
        self.trace.append(step)
        fault = self.faults.get(step.number)
        if fault is not None:
            step.came = f"   <-- {fault.value}"
        if self.director is not None:
            await self.director.before(step)
        if fault is Kind.FREEZES_BEFORE:
            freeze(actor)
        await self._alive(actor)
        if fault is Kind.DIES_BEFORE:
            kill(actor)
        if fault is Kind.REFUSED and step.refusable:
            raise refusal
        answer = _outcome(effect)
        if fault is Kind.DIES_AFTER:
            kill(actor)
        if fault is Kind.REPEATED and step.repeatable:
            await self._travel(actor)
            answer = _outcome(effect)
        if fault is Kind.UNANSWERED and step.repeatable:
            raise refusal
        if fault is Kind.FREEZES_AFTER:
            freeze(actor)
        if self.director is not None:
            await self.director.after(step)
        await self._travel(actor)
        return answer()

    async def _travel(self, actor: Actor) -> None:
        await asyncio.sleep(LATENCY)
        await self._alive(actor)

    async def _alive(self, actor: Actor) -> None:
        """Wait until the process is not frozen; if it is dead, nothing of it goes on."""
        if not actor.awake.is_set():
            await actor.awake.wait()
        if actor.dead:
            raise Killed

    def printed(self) -> str:
        return "\n".join(map(str, self.trace))


def kill(actor: Actor) -> None:
    """End a process: nothing that it still does has an effect outside.

    Raises:
        Killed: where it stands.
    """
    end(actor)
    raise Killed


def end(actor: Actor) -> None:
    """End a process from outside."""
    actor.dead = True
    actor.awake.set()
    if actor.root is not None:
        asyncio.get_running_loop().call_soon(actor.root.cancel)


def freeze(actor: Actor, seconds: float = FROZEN_SECONDS) -> None:
    """Nothing of a process goes on for so long."""
    actor.awake.clear()
    asyncio.get_running_loop().call_later(seconds, actor.awake.set)


def _outcome(effect: Callable[[], Any]) -> Callable[[], Any]:
    """What a call answers: a value or an error, said when the caller is reached."""
    try:
        value = effect()
    except Exception as exc:  # noqa: BLE001 - an answer as well
        problem = exc

        def refuse() -> Any:
            raise problem

        return refuse
    return lambda: value


def _brief(name: str, args: Sequence[Any]) -> str:
    """The arguments as people read them."""
    if name == "jobs.replace":
        seen, new = args[0], args[1]
        flag = " cancel!" if new.cancel_requested else ""
        return f"{new.id[-3:]} {seen.status}->{new.status} v{new.version} g{new.generation} a{new.attempt}{flag}"
    return " ".join(_short(arg) for arg in args)


def _short(value: Any) -> str:
    text = str(getattr(value, "id", None) or value)
    if text.startswith("Chunk("):
        return f"a{value.attempt} {value.start}:{value.end}"
    if text.startswith("Result("):
        return f"a{value.attempt} {value.status} {value.finish_reason} {len(value.text)}"
    if text.startswith("job_"):
        return text[-3:]
    return text[:110]
