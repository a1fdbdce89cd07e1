"""Everything goes wrong at once for a while, and the promise holds. What happened is told at the end of pytest's report.

`HEADRACE_SOAK_SEED`, `HEADRACE_SOAK_JOBS` and `HEADRACE_SOAK_SECONDS` draw others. A seed says what is going to happen
and when; which worker has which job at that moment is the machine's own choice.
"""

from __future__ import annotations

import pytest

from tests.e2e import evidence
from tests.e2e.cloud import Stack
from tests.e2e.soak import Soak
from tests.summary import SUMMARY


@pytest.fixture(scope="module")
def soak(stack: Stack) -> Soak:
    """One soak for all claims about it."""
    soak = Soak(stack)
    soak.run()
    SUMMARY["soak on the laptop cloud"] = lambda: evidence.report(soak)
    return soak


def test_every_accepted_job_ends_as_it_should(soak: Soak) -> None:
    """Only what OpenAI refused failed, only what somebody cancelled is cancelled; whatever died, the rest is completed."""
    assert list(evidence.wrong_ends(soak)) == []


def test_each_result_is_one_whole_answer(soak: Soak) -> None:
    """Each request was answered with words of its own: a text that was put together of two would be seen."""
    assert list(evidence.wrong_texts(soak)) == []


def test_every_watcher_holds_exactly_the_result(soak: Soak) -> None:
    """Over sockets that were broken and event streams that were reset, across attempts, deaths and runs."""
    assert list(evidence.wrong_views(soak)) == []


def test_every_attempt_is_in_the_ledger_and_one_completed(soak: Soak) -> None:
    """Numbered from 1 without a gap; the one that the record names completed."""
    assert list(evidence.wrong_ledgers(soak)) == []


def test_no_message_is_left_and_only_garbage_is_set_aside(soak: Soak) -> None:
    """Doubled, late, stale and foreign wake-ups are gone; a dead letter is what we made one, and no job's wake-up."""
    assert soak.left == {}
    assert set(soak.dead_letters) == soak.lies.garbage


def test_openais_stand_in_has_nothing_to_say_against_us(soak: Soak) -> None:
    """llmock's own verdict, taken strictly: we waited as told, backed off, believed no cut answer and repeated nothing in vain."""
    assert evidence.findings(soak) == []


def test_it_was_a_storm(soak: Soak) -> None:
    """Each thing that was to go wrong did: a quiet soak shows nothing."""
    assert [what for what, how_often in evidence.counted(soak).items() if how_often == 0] == []
    assert evidence.recoveries(soak)
