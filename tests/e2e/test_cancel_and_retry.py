"""Cancelling and retrying a job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from tests.e2e.stack import Api, Model, Stack, until, words
from tests.e2e.subscribers import Socket, SocketSubscriber

LONG = 900  # words, at 20 ms each: longer than any of these tests takes


def test_a_cancelled_job_stops_its_stream_and_keeps_its_text(stack: Stack, api: Api, model: Model) -> None:
    """The request to OpenAI is closed early, and the usage of the text is estimated."""
    model.reply(words(LONG))
    job_id = api.submit(config=model.config)
    subscriber = SocketSubscriber(stack, job_id)
    with ThreadPoolExecutor() as threads:
        watching = threads.submit(subscriber.watch)
        until(lambda: subscriber.assembly.position > 0 or watching.done(), "the first text")

        answer = api.call("POST", f"/jobs/{job_id}/cancel")
        watching.result()
    result = api.wait_for_end(job_id)

    assert answer.status_code == 202
    (request,) = model.requests
    assert request["completed"] is False
    assert request["chunks_sent"] < LONG // 2
    assert result["status"] == "cancelled"
    assert 0 < result["length"] == len(result["output"])
    assert words(LONG).startswith(result["output"])
    assert result["usage"]["estimated"] is True
    assert result["usage"]["output_tokens"] > 0
    assert Decimal(result["cost"]) > 0
    assert subscriber.text == result["output"]
    assert subscriber.frames[-1]["event"] == "job_cancelled"
    assert subscriber.frames[-1]["length"] == result["length"]


def test_job_is_cancelled_before_the_first_token(api: Api, model: Model) -> None:
    """It has ended before OpenAI would have begun to answer."""
    model.reply("Too late.")
    model.delay_first_token(45)
    job_id = api.submit(config=model.config)
    until(lambda: api.get(f"/jobs/{job_id}/status")["status"] == "processing", "a worker")

    answer = api.call("DELETE", f"/jobs/{job_id}")
    result = api.wait_for_end(job_id)

    assert answer.status_code == 202
    assert (result["status"], result["output"], result["length"]) == ("cancelled", "", 0)


def test_job_is_cancelled_over_a_websocket(stack: Stack, api: Api, model: Model) -> None:
    """`{"action": "cancel"}` does what DELETE does."""
    model.reply(words(LONG))
    job_id = api.submit(config=model.config)
    api.wait_for_text(job_id)

    with Socket(stack) as open_socket:
        open_socket.send({"action": "cancel", "job_id": job_id})
        result = api.wait_for_end(job_id)

    assert result["status"] == "cancelled"
    assert model.requests[0]["completed"] is False


def test_queued_job_is_cancelled_at_once_without_an_attempt(api: Api, model: Model) -> None:
    """The response is 200 and already has status `cancelled`."""
    for _ in range(10):  # an idle worker may claim the job before the second request
        job_id = api.submit(config=model.config, priority="low")
        answer = api.call("DELETE", f"/jobs/{job_id}")
        if answer.status_code == 200:
            break

    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    record = api.get(f"/jobs/{job_id}")
    assert (record["attempt"], record["started_at"], record["usage"]) == (0, None, None)
    assert api.get(f"/jobs/{job_id}/result")["output"] == ""


def test_cancelling_an_ended_job_changes_nothing(api: Api, model: Model) -> None:
    """The response has the final status."""
    model.reply("All there is.")
    job_id = api.submit(config=model.config)
    ended = api.wait_for_end(job_id)

    answer = api.call("DELETE", f"/jobs/{job_id}")

    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert api.get(f"/jobs/{job_id}/result") == ended


def test_a_cancelled_job_is_retried_as_a_new_run(stack: Stack, api: Api, model: Model) -> None:
    """Subscribers start over, and a repeated retry request starts nothing."""
    model.reply(words(LONG, "old"), times=1)
    model.reply("The new answer.", times=1)
    job_id = api.submit(config=model.config)
    subscriber = SocketSubscriber(stack, job_id)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(subscriber.watch)
        until(lambda: subscriber.assembly.position > 0 or first.done(), "the first text")
        api.call("DELETE", f"/jobs/{job_id}")
        first.result()

    answer = api.call("POST", f"/jobs/{job_id}/retry", {"run": 1})
    repeated = api.call("POST", f"/jobs/{job_id}/retry", {"run": 1})
    result = api.wait_for_end(job_id)
    subscriber.watch_retried()

    assert (answer.status_code, answer.json()["run"]) == (202, 2)
    assert repeated.status_code == 202, "a repeated request names a run that has started, so it is accepted and starts nothing"
    assert (result["status"], result["attempt"], result["output"]) == ("completed", 2, "The new answer.")
    assert subscriber.text == "The new answer."
    assert subscriber.started_over
    assert [attempt["attempt"] for attempt in api.get(f"/jobs/{job_id}/attempts")["data"]] in ([1, 2], [2, 1])
    assert len(model.requests) == 2


def test_completed_job_cannot_be_retried(api: Api, model: Model) -> None:
    model.reply("Done.")
    job_id = api.submit(config=model.config)
    api.wait_for_end(job_id)

    answer = api.call("POST", f"/jobs/{job_id}/retry")

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_not_retryable")
