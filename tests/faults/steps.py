"""Numbered steps: every call of a port and every event of the provider. Each may have a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from chalicelib.domain.errors import Unavailable

LATENCY = 0.01  # seconds of each way to a store and back, in which other processes act


class Killed(BaseException):
    """The process has died.

    Not an `Exception`, so that its code does not continue as after a failed call.
    """


class Kind(StrEnum):
    """The kinds of faults at a step."""

    DIES_BEFORE = "the process dies before the effect"
    DIES_AFTER = "the process dies after the effect"
    REPEATED = "the response is lost, the SDK repeats the call"
    REFUSED = "refused once, without effect"
    UNANSWERED = "the call has its effect, the response is lost"
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
    """One process: an invocation of a worker, a request to the API or a run of the sweeper."""

    name: str
    root: asyncio.Task[Any] | None = None
    dead: bool = False
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    threads: set[asyncio.Task[Any]] = field(default_factory=set)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    claims: dict[str, int] = field(default_factory=dict)  # the attempts that it claimed, by job id

    def __post_init__(self) -> None:
        self.awake.set()

    @property
    def role(self) -> str:
        return self.name.split()[0]


ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)


@dataclass(eq=False)
class Step:
    """One call, as a failure report prints it. `note` marks a fault."""

    number: int
    at: float
    actor: Actor
    name: str
    args: Sequence[Any]
    note: str = ""

    @property
    def refusable(self) -> bool:
        return self.name != "provider.close"

    @property
    def repeatable(self) -> bool:
        return not self.name.startswith("provider.")  # the adapter never repeats a provider request, which would cost twice

    @property
    def is_tried_once(self) -> bool:
        return self.name == "rates.give_back"  # a repetition would take a request off the window twice

    def __str__(self) -> str:
        return f"{self.number:4} {self.at:8.2f} {self.actor.name:<10} {self.name} {_format_args(self.name, self.args)}{self.note}"


class Director(Protocol):
    """Controls the order of steps: a step waits until `before` returns."""

    async def before(self, step: Step) -> None: ...

    async def after(self, step: Step) -> None: ...


class Steps:
    """Numbers the steps of a run, and injects the faults. `trace` are the steps so far."""

    def __init__(self, faults: Sequence[Fault] = (), director: Director | None = None) -> None:
        self.faults = {fault.step: fault.kind for fault in faults}
        self.director = director
        self.trace: list[Step] = []

    async def perform(self, name: str, args: Sequence[Any], effect: Callable[[], Any], refusal: type[Exception] = Unavailable) -> Any:
        """Perform one step of the current actor: latency, effect, latency.

        Raises `refusal` if a fault refuses it.
        """
        actor = ACTOR.get()
        assert actor is not None
        await self._delay(actor)
        step = Step(len(self.trace) + 1, asyncio.get_running_loop().time(), actor, name, args)
        self.trace.append(step)
        fault = self.faults.get(step.number)
        if fault is not None:
            step.note = f"   <-- {fault.value}"
        if self.director is not None:
            await self.director.before(step)
        if fault is Kind.FREEZES_BEFORE:
            freeze(actor)
        await self._check_alive(actor)
        if fault is Kind.DIES_BEFORE:
            kill(actor)
        if fault is Kind.REFUSED and step.refusable:
            raise refusal
        outcome = _outcome(effect)
        if fault is Kind.DIES_AFTER:
            kill(actor)
        if fault is Kind.REPEATED and step.repeatable and not step.is_tried_once:
            await self._delay(actor)
            outcome = _outcome(effect)
        if fault is Kind.UNANSWERED and step.repeatable:
            raise refusal
        if fault is Kind.FREEZES_AFTER:
            freeze(actor)
        if self.director is not None:
            await self.director.after(step)
        await self._delay(actor)
        return outcome()

    async def _delay(self, actor: Actor) -> None:
        await asyncio.sleep(LATENCY)
        await self._check_alive(actor)

    async def _check_alive(self, actor: Actor) -> None:
        """Wait while the process is frozen. Raise `Killed` if it is dead."""
        if not actor.awake.is_set():
            await actor.awake.wait()
        if actor.dead:
            raise Killed

    def formatted(self) -> str:
        return "\n".join(map(str, self.trace))


def kill(actor: Actor) -> None:
    """Kill the current process. No later step of it has an effect.

    Raises:
        Killed: always, so that the current code stops.
    """
    end(actor)
    raise Killed


def end(actor: Actor) -> None:
    """Kill a process from outside."""
    actor.dead = True
    actor.awake.set()
    if actor.root is not None:
        asyncio.get_running_loop().call_soon(actor.root.cancel)


def freeze(actor: Actor, seconds: float = FROZEN_SECONDS) -> None:
    """Suspend all steps of a process for `seconds`."""
    actor.awake.clear()
    asyncio.get_running_loop().call_later(seconds, actor.awake.set)


def _outcome(effect: Callable[[], Any]) -> Callable[[], Any]:
    """Run `effect`, and return a function that delivers its value or error."""
    try:
        value = effect()
    except Exception as exc:  # noqa: BLE001 - raised when the response has arrived
        error = exc

        def fail() -> Any:
            raise error

        return fail
    return lambda: value


def _format_args(name: str, args: Sequence[Any]) -> str:
    """Return the arguments in short form."""
    if name == "jobs.replace":
        seen, new = args[0], args[1]
        flag = " cancel!" if new.cancel_requested else ""
        return f"{new.id[-3:]} {seen.status}->{new.status} v{new.version} g{new.generation} a{new.attempt}{flag}"
    return " ".join(_format_arg(arg) for arg in args)


def _format_arg(value: Any) -> str:
    text = str(getattr(value, "id", None) or value)
    if text.startswith("Chunk("):
        return f"a{value.attempt} {value.start}:{value.end}"
    if text.startswith("Result("):
        return f"a{value.attempt} {value.status} {value.finish_reason} {len(value.text)}"
    if text.startswith("job_"):
        return text[-3:]
    return text[:110]
