"""What the functions answer SQS when some of their messages could not be processed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import Throttled, Unavailable
from chalicelib.domain.jobs.job import Status
from chalicelib.services.worker.process_messages import PartialBatchFailure
from tests.kit.http import CONTEXT, Api, unreachable


@pytest.fixture
def reporting(api: Api) -> Api:
    """An API whose functions may answer with failures, as the deployment tells them."""
    api.container.settings = replace(api.container.settings, report_batch_failures=True)
    return api


def records(api: Api, queue: str) -> list[dict[str, Any]]:
    """All messages of a queue, as SQS hands them to a function."""
    received = api.container.queues.receive(queue)
    return [{"body": one.body, "receiptHandle": one.receipt, "messageId": one.id} for one in received]


def failed(answer: Any) -> list[str]:
    return [one["itemIdentifier"] for one in answer["batchItemFailures"]]


def break_job(api: Api, broken: str) -> None:
    """Let every write of this job fail."""
    write: Callable[[Any, Any], None] = api.container.jobs.replace

    def refuse(seen: Any, new: Any) -> None:
        if seen.id == broken:
            raise Unavailable
        write(seen, new)

    api.container.jobs.replace = refuse  # type: ignore[method-assign]


def test_a_worker_returns_only_the_messages_that_it_did_not_process(reporting: Api) -> None:
    """The others would come again otherwise, and SQS would slow the whole lane down."""
    broken, fine = reporting.submit(), reporting.submit()
    messages = records(reporting, "normal")
    break_job(reporting, broken)

    answer = reporting.module.worker_normal({"Records": messages}, CONTEXT)

    assert failed(answer) == [one["messageId"] for one in messages if json.loads(one["body"])["job_id"] == broken]
    assert len(failed(answer)) == 1
    assert reporting.job(fine).status is Status.COMPLETED


def test_a_worker_whose_event_source_was_not_told_raises(api: Api) -> None:
    """Lambda would take the answer for success and delete the messages."""
    broken, _ = api.submit(), api.submit()
    messages = records(api, "normal")
    break_job(api, broken)

    with pytest.raises(PartialBatchFailure):
        api.module.worker_normal({"Records": messages}, CONTEXT)


def test_a_worker_returns_all_messages_while_the_store_does_not_answer(reporting: Api) -> None:
    for _ in range(3):
        reporting.submit()
    messages = records(reporting, "normal")
    reporting.container.jobs.get_many = unreachable(reporting.container.jobs.get_many)  # type: ignore[method-assign]

    answer = reporting.module.worker_normal({"Records": messages}, CONTEXT)

    assert failed(answer) == [one["messageId"] for one in messages]


def test_a_bug_in_a_worker_is_an_error_of_the_function(reporting: Api) -> None:
    """The errors of functions are what somebody looks at."""

    def bug(*_: Any, **__: Any) -> Any:
        raise KeyError("bug")

    reporting.submit()
    messages = records(reporting, "normal")
    reporting.container.jobs.get_many = bug  # type: ignore[method-assign]

    with pytest.raises(KeyError):
        reporting.module.worker_normal({"Records": messages}, CONTEXT)


@pytest.mark.parametrize("function", ["worker_normal", "run_tasks", "deliver"])
def test_a_batch_that_was_processed_names_no_message(reporting: Api, function: str) -> None:
    answer = getattr(reporting.module, function)({"Records": [{"body": "{}", "receiptHandle": "r", "messageId": "m"}]}, CONTEXT)

    assert failed(answer) == []


def broken_dead_letters(api: Api, broken: str) -> None:
    """Let the dead-letter queue refuse one message."""
    send = api.container.queues.send_to_dead_letter

    def refuse(lane: str, body: str, reason: str) -> None:
        if body == broken:
            raise Throttled
        send(lane, body, reason)

    api.container.queues.send_to_dead_letter = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize("function", ["run_tasks", "deliver"])
def test_messages_that_fail_do_not_bring_the_others_back(reporting: Api, function: str) -> None:
    broken_dead_letters(reporting, "second")
    messages = [{"body": body, "receiptHandle": body, "messageId": f"id of {body}"} for body in ("first", "second", "third")]

    answer = getattr(reporting.module, function)({"Records": messages}, CONTEXT)

    assert failed(answer) == ["id of second"]
    kept = reporting.container.queues.dead_lettered["tasks" if function == "run_tasks" else "deliveries"]
    assert sorted(body for body, _ in kept) == ["first", "third"]


@pytest.mark.parametrize("function", ["run_tasks", "deliver"])
def test_a_failed_message_is_raised_where_no_answer_is_taken(api: Api, function: str) -> None:
    broken_dead_letters(api, "second")
    messages = [{"body": body, "receiptHandle": body, "messageId": body} for body in ("first", "second")]

    with pytest.raises(Throttled):
        getattr(api.module, function)({"Records": messages}, CONTEXT)


def test_returned_messages_are_logged(reporting: Api) -> None:
    reporting.container.log_lines = []
    broken_dead_letters(reporting, "x")

    reporting.module.run_tasks({"Records": [{"body": "x", "receiptHandle": "r", "messageId": "m"}]}, CONTEXT)

    [fields] = [fields for event, fields in reporting.container.log_lines if event == "messages_returned"]
    assert fields["count"] == 1
    assert isinstance(fields["error"], Throttled)
