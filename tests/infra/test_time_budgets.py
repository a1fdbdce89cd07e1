"""The functions that read the change stream end before Lambda ends them, however slow AWS is.

A batch that is cut off is delivered again from its start, so it might never get through. The sums
below assume that AWS answers in good time or not at all. A call that gets no answer fails when all
its tries are over, and nothing else is started for its change.
"""

from __future__ import annotations

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.consumers import broadcast_job_end, change_loop, count_jobs, release_dependents
from chalicelib.services.batches import broadcast_progress
from chalicelib.services.streaming.broadcast_states import SEND_MS
from infra.chalice_config import FUNCTIONS

RETRY_PAUSES = 1 + 2  # seconds at most, of botocore between three tries
LONGEST_CALL_MS = 1000 * round(aws.ATTEMPTS * (aws.CONNECT_TIMEOUT + aws.READ_TIMEOUT) + RETRY_PAUSES)
MARGIN_MS = 4_000  # a cold start, parsing the records, and the log


def timeout_ms(name: str) -> int:
    [function] = [function for function in FUNCTIONS if function.name == name]
    return function.timeout * 1000


def test_all_steps_of_on_job_change_fit_into_its_timeout() -> None:
    """Each step starts nothing after its budget, so that one hanging call is the most beyond it."""
    notifying = change_loop.TIME_BUDGET_MS + LONGEST_CALL_MS
    releasing = release_dependents.TIME_BUDGET_MS + release_dependents.ENQUEUE_MS + LONGEST_CALL_MS
    broadcasting = broadcast_job_end.TIME_BUDGET_MS + LONGEST_CALL_MS

    assert notifying + releasing + broadcasting + MARGIN_MS <= timeout_ms("on_job_change")


def test_all_steps_of_count_jobs_fit_into_its_timeout() -> None:
    """Each has a time of the batch after which it starts nothing."""
    last = max(count_jobs.COUNT_UNTIL_MS, count_jobs.ADVANCE_UNTIL_MS, count_jobs.BROADCAST_UNTIL_MS)

    assert count_jobs.COUNT_UNTIL_MS < count_jobs.ADVANCE_UNTIL_MS < count_jobs.BROADCAST_UNTIL_MS
    assert broadcast_progress.TIME_BUDGET_MS <= count_jobs.BROADCAST_UNTIL_MS - count_jobs.ADVANCE_UNTIL_MS
    assert last + LONGEST_CALL_MS + MARGIN_MS <= timeout_ms("count_jobs")


def test_a_hanging_post_is_bounded_and_fits_into_the_budget_of_broadcasting() -> None:
    """Posts are not repeated, so one takes a timeout to connect and one to read."""
    assert SEND_MS >= 1000 * (aws.CONNECT_TIMEOUT + aws.READ_TIMEOUT)
    assert 2 * SEND_MS <= broadcast_job_end.TIME_BUDGET_MS


@pytest.mark.parametrize("operation", ["post", "is_open", "close"])
def test_the_client_of_sockets_has_these_timeouts(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """A hanging socket must not be asked three times."""
    from chalicelib.adapters.aws.websocket_api import ApiGatewaySockets

    made: list[dict[str, object]] = []

    class Client:
        def __getattr__(self, _: str) -> object:
            return lambda **_: {}

    def client(service: str, **options: object) -> Client:
        made.append({"service": service, **options})
        return Client()

    monkeypatch.setattr(aws, "client", client)
    getattr(ApiGatewaySockets(), operation)("https://x", "c1", *([b"x"] if operation == "post" else []))

    [options] = made
    assert options["attempts"] == 1
    assert options.get("read_timeout", aws.READ_TIMEOUT) <= aws.READ_TIMEOUT
