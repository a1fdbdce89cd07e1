"""Many faults at once on the laptop cloud: every guarantee holds.

Pytest's report ends with the soak's numbers.

`HEADRACE_SOAK_SEED`, `HEADRACE_SOAK_JOBS` and `HEADRACE_SOAK_SECONDS` draw other soaks. A seed
determines the jobs, the faults and their times, but not which worker has which job at that time.
"""

from __future__ import annotations

import pytest

from tests.e2e import evidence
from tests.e2e.soak import Soak
from tests.e2e.stack import Stack
from tests.summary import SUMMARY


@pytest.fixture(scope="module")
def soak(stack: Stack) -> Soak:
    """One soak for all its tests."""
    soak = Soak(stack)
    soak.run()
    SUMMARY["soak on the laptop cloud"] = lambda: evidence.report(soak)
    return soak


def test_every_accepted_job_has_the_expected_status(soak: Soak) -> None:
    """Only refused requests fail, only cancelled jobs are cancelled, and the rest complete."""
    assert list(evidence.wrong_ends(soak)) == []


def test_each_result_is_one_whole_answer(soak: Soak) -> None:
    """Each request is answered with distinct words, so a text mixed from two would be found."""
    assert list(evidence.wrong_texts(soak)) == []


def test_every_subscriber_holds_exactly_the_result(soak: Soak) -> None:
    """Sockets and event streams were interrupted across attempts, worker deaths and runs."""
    assert list(evidence.wrong_views(soak)) == []


def test_every_attempt_has_a_record_and_one_counts(soak: Soak) -> None:
    """Attempts are numbered without a gap; the one that the job record names completed."""
    assert list(evidence.wrong_attempts(soak)) == []


def test_no_message_is_left_and_only_invalid_ones_are_dead_lettered(soak: Soak) -> None:
    """Doubled, late and foreign wake-ups are gone, and no job's wake-up was dead-lettered."""
    assert soak.left == {}
    assert set(soak.dead_letters) == soak.stray.garbage


def test_llmock_reports_no_findings(soak: Soak) -> None:
    """It checks waits, backoffs, cut answers and needless repetitions."""
    assert evidence.findings(soak) == []


def test_every_planned_fault_has_happened(soak: Soak) -> None:
    """A quiet soak would prove nothing."""
    assert [what for what, how_often in evidence.counted(soak).items() if how_often == 0] == []
    assert evidence.recovery_times(soak)
