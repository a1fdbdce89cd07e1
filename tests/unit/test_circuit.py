"""When a circuit opens, what it lets through, who may try it out, and what closes it: a table a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.circuit import (
    COOL_DOWN_MS,
    FAILURES_OPEN,
    FORCED_LOOK_MS,
    IN_A_ROW_MS,
    LONGEST_COOL_DOWN_MS,
    PROBE_MS,
    QUIET_MS,
    Circuit,
    Entry,
    Sign,
    State,
    admits,
    answered,
    cool_down,
    failed,
    force_close,
    force_open,
    look_again_at,
    probe,
    sign_of,
    unproved,
)
from chalicelib.domain.errors import AttemptFailed
from tests.unit.domain_jobs import NOW

CALM = Circuit(model="m")
OPEN = failed(CALM, "provider_quota_exhausted", NOW - 500, "first", NOW)
DUE = NOW + COOL_DOWN_MS
PROBED = probe(OPEN, "p", DUE)
assert PROBED is not None


def after(*failures: tuple[str, int]) -> Circuit:
    """What so many failures, each at its time, make of a calm circuit."""
    circuit = CALM
    for number, (code, at) in enumerate(failures):
        circuit = failed(circuit, code, at, f"a{number}", at)
    return circuit


@pytest.mark.parametrize(
    ("code", "sign"),
    [
        (None, Sign.SUCCESS),
        ("content_refused", Sign.SUCCESS),  # an answer, if no welcome one
        ("output_invalid", Sign.SUCCESS),
        ("provider_unavailable", Sign.FAILURE),
        ("provider_timeout", Sign.FAILURE),
        ("provider_connection_lost", Sign.FAILURE),
        ("stream_cut", Sign.FAILURE),
        ("stream_malformed", Sign.FAILURE),
        ("provider_quota_exhausted", Sign.ACCOUNT_BLOCKED),
        ("authentication_failed", Sign.ACCOUNT_BLOCKED),
        ("provider_rate_limited", Sign.INCONCLUSIVE),
        ("request_invalid", Sign.INCONCLUSIVE),
        ("timeout", Sign.INCONCLUSIVE),  # `config.timeout`: the caller's wish
        ("openai_not_configured", Sign.INCONCLUSIVE),
        ("internal_error", Sign.INCONCLUSIVE),
    ],
)
def test_what_an_error_says_of_the_provider(code: str | None, sign: Sign) -> None:
    assert sign_of(code) is sign


def test_every_error_of_an_attempt_was_thought_of() -> None:
    """A new one is silent until somebody decides."""
    codes = {kind.code for kind in AttemptFailed.__subclasses__()}

    assert {code for code in codes if sign_of(code) is Sign.INCONCLUSIVE} == {
        "content_gone",
        "dependency_failed",
        "openai_not_configured",
        "provider_rate_limited",
        "reattach_refused",
        "request_invalid",
        "response_lost",
        "store_unavailable",
        "timeout",
        "worker_ending",
    }


@pytest.mark.parametrize(
    ("failures", "state"),
    [
        ([("stream_cut", NOW + n) for n in range(FAILURES_OPEN - 1)], State.CLOSED),
        ([("stream_cut", NOW + n) for n in range(FAILURES_OPEN)], State.OPEN),
        ([("provider_timeout", NOW + n * IN_A_ROW_MS) for n in range(FAILURES_OPEN)], State.OPEN),  # just in a row
        ([("provider_timeout", NOW + n * (IN_A_ROW_MS + 1)) for n in range(FAILURES_OPEN)], State.CLOSED),  # too far apart
        ([("provider_rate_limited", NOW + n) for n in range(99)], State.CLOSED),
        ([("provider_quota_exhausted", NOW)], State.OPEN),
        ([("authentication_failed", NOW)], State.OPEN),
    ],
)
def test_when_it_opens(failures: list[tuple[str, int]], state: State) -> None:
    """A run of failures, or one that every other request would meet too."""
    circuit = after(*failures)

    assert circuit.state is state
    if state is State.OPEN:
        assert (circuit.reason, circuit.until, circuit.trips) == (failures[-1][0], failures[-1][1] + COOL_DOWN_MS, 1)


def test_an_answer_ends_a_run_of_failures() -> None:
    """And a calm circuit is left as it is: success writes nothing."""
    failing = after(*[("stream_cut", NOW)] * 4)

    calm = answered(failing, NOW - 1, "x", NOW + 1)

    assert (failing.failures, calm.failures, calm.is_healthy) == (4, 0, True)
    assert answered(calm, NOW, "x", NOW + 2) is calm
    assert answered(CALM, NOW, "x", NOW) is CALM


@pytest.mark.parametrize(
    ("circuit", "at", "entry"),
    [
        (CALM, NOW, Entry.ALLOWED),
        (after(*[("stream_cut", NOW)] * 4), NOW, Entry.ALLOWED),
        (OPEN, DUE - 1, Entry.DENIED),
        (OPEN, DUE, Entry.PROBE),
        (PROBED, DUE + PROBE_MS - 1, Entry.DENIED),
        (PROBED, DUE + PROBE_MS, Entry.PROBE),  # its holder is dead: the probe is over by itself [15]
        (force_open(CALM, "ann", None, "x", NOW), NOW + 10**9, Entry.DENIED),
    ],
)
def test_what_it_lets_through(circuit: Circuit, at: int, entry: Entry) -> None:
    assert admits(circuit, "q", at) is entry


def test_one_probe() -> None:
    """Whoever asks again under the same mark is it already; nobody else is."""
    assert PROBED is not None
    assert (PROBED.state, PROBED.until) == (State.HALF_OPEN, DUE + PROBE_MS)
    assert probe(PROBED, "p", DUE + 1) is PROBED
    assert admits(PROBED, "p", DUE + 1) is Entry.PROBE
    assert probe(PROBED, "q", DUE + 1) is None
    assert probe(OPEN, "q", DUE - 1) is None
    assert probe(CALM, "q", NOW) is None


def test_the_probe_closes_it() -> None:
    """And what follows counts from nothing."""
    assert PROBED is not None
    closed = answered(PROBED, DUE, "p", DUE + 900)

    assert (closed.state, closed.failures, closed.until, closed.reason, closed.closed_at) == (State.CLOSED, 0, None, None, DUE + 900)


@pytest.mark.parametrize(
    ("began", "closes"),
    [
        (NOW + 1, True),  # another process had not heard of it yet, and its attempt goes well
        (NOW - 1, False),  # it was under way before: that says nothing of now
    ],
)
def test_who_began_after_it_opened_proves_it_too(began: int, closes: bool) -> None:
    for circuit in (OPEN, PROBED):
        assert circuit is not None
        assert (answered(circuit, began, "x", DUE + 1).state is State.CLOSED) is closes


def test_a_failed_probe_opens_it_for_longer() -> None:
    """Only the probe's failure does; others were under way."""
    assert PROBED is not None
    again = failed(PROBED, "stream_cut", DUE, "p", DUE + 5)

    assert (again.state, again.trips, again.until) == (State.OPEN, 2, DUE + 5 + 2 * COOL_DOWN_MS)
    assert failed(PROBED, "stream_cut", DUE, "x", DUE + 5) is PROBED
    assert failed(OPEN, "stream_cut", NOW + 1, "x", NOW + 5) is OPEN


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    assert PROBED is not None
    again = unproved(PROBED, "p", DUE + 7)

    assert (again.state, admits(again, "q", DUE + 7), again.trips) == (State.OPEN, Entry.PROBE, 1)
    assert unproved(PROBED, "x", DUE + 7) is PROBED


def test_what_began_before_it_was_closed_opens_it_no_more() -> None:
    """A straggler of the time before tells nothing of the time after."""
    assert PROBED is not None
    closed = answered(PROBED, DUE, "p", DUE + 900)

    assert failed(closed, "provider_quota_exhausted", DUE - 1, "x", DUE + 1_000) is closed
    assert failed(closed, "provider_quota_exhausted", DUE + 950, "x", DUE + 1_000).state is State.OPEN


def test_cool_downs_grow_and_are_forgotten() -> None:
    """Doubling to five minutes; after ten quiet ones they begin anew."""
    assert [cool_down(trips) for trips in (1, 2, 3, 4, 5, 50)] == [30_000, 60_000, 120_000, 240_000, 300_000, LONGEST_COOL_DOWN_MS]
    closed = replace(CALM, trips=4, closed_at=NOW, version=9)

    soon = failed(closed, "authentication_failed", NOW + 1, "x", NOW + QUIET_MS - 1)
    late = failed(closed, "authentication_failed", NOW + 1, "x", NOW + QUIET_MS)

    assert (soon.trips, late.trips) == (5, 1)


def test_forced_open_stays_open() -> None:
    """Nothing that happens closes it or lets a probe through: only a person."""
    forced = force_open(CALM, "ann", "moving house", "x", NOW)

    assert forced.is_forced
    assert answered(forced, NOW + 9, "y", NOW + 99) is forced
    assert failed(forced, "stream_cut", NOW + 9, "y", NOW + 99) is forced
    assert probe(forced, "y", NOW + 10**9) is None
    closed = force_close(forced, "ann", "z", NOW + 100)
    assert (closed.state, closed.trips, closed.by, closed.is_healthy) == (State.CLOSED, 0, "ann", True)


@pytest.mark.parametrize(
    ("circuit", "at", "again"),
    [
        (OPEN, NOW + 5, DUE),
        (OPEN, DUE + 5, DUE + 5),
        (PROBED, DUE + 1, DUE + 10_001),  # the probe's first text may come any moment
        (PROBED, DUE + 59_000, DUE + PROBE_MS),
        (force_open(CALM, "ann", None, "x", NOW), NOW, NOW + FORCED_LOOK_MS),
    ],
)
def test_when_to_look_again(circuit: Circuit, at: int, again: int) -> None:
    assert look_again_at(circuit, at) == again


def test_every_change_is_a_version() -> None:
    """One more each time, so that a swap can tell whether anything came between."""
    assert PROBED is not None
    assert (OPEN.version, PROBED.version, answered(PROBED, DUE, "p", DUE).version) == (1, 2, 3)
    assert force_close(force_open(CALM, "a", None, "x", NOW), "a", "x", NOW).version == 2
