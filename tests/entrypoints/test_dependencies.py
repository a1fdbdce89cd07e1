"""Dependencies between jobs and the graph of them, through `app.py`."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import rfc3339
from tests.kit.http import Api, Reply
from tests.kit.provider import Script
from tests.kit.replies import field_errors
from tests.kit.triggers import publish_change
from tests.kit.work import sweep, work


def submit_dependent(api: Api, depends_on: Any, token: str = "user", prompt: str = "x", **fields: Any) -> Reply:
    return api.call("POST", "/jobs", {"prompt": prompt, "depends_on": depends_on, **fields}, token)


def graph(api: Api, job_id: str, token: str = "user") -> dict[str, Any]:
    reply = api.call("GET", f"/jobs/{job_id}/graph", token=token)
    assert reply.status == 200, reply.text
    return dict(reply.json)


# ---- submitting


def test_a_dependent_job_runs_with_the_output_of_its_parent(api: Api) -> None:
    api.container.provider.scripts[:] = [Script(deltas=("first answer",)), Script(deltas=("second",))]
    first = api.submit()
    reply = submit_dependent(api, {"one": first}, prompt="Go on from {{parents.one.output}}.", **{"async": True})
    second = reply.json["job_id"]

    assert (reply.status, reply.json["status"], reply.json["queue_position"]) == (202, "waiting", None)
    assert reply.json["estimated_completion_at"] is None
    record = api.call("GET", f"/jobs/{second}?include=prompt").json
    assert (record["status"], record["reason"], record["depends_on"]) == ("waiting", "dependencies", [first])
    assert record["prompt"] == "Go on from {{parents.one.output}}."
    assert api.call("GET", f"/jobs/{second}/status").json["estimated_seconds_remaining"] is None

    work(api)
    publish_change(api, first)
    work(api)

    assert api.call("GET", f"/jobs/{second}/result").json["output"] == "second"
    assert api.container.provider.requests[1].prompt == "Go on from first answer."


def test_a_parent_given_in_a_list_is_named_by_its_id(api: Api) -> None:
    first = api.submit()

    reply = submit_dependent(api, [first], prompt=f"{{{{parents.{first}.output}}}}")

    assert reply.status == 202


def test_a_dependent_job_expires_after_thirty_days_by_default(api: Api) -> None:
    """The parents may have to wait themselves; `expires_in` overrides the default."""
    first, now = api.submit(), api.container.clock.now()

    by_default, within_a_minute = (
        submit_dependent(api, [first]).json["job_id"],
        submit_dependent(api, [first], expires_in=60).json["job_id"],
    )

    assert api.call("GET", f"/jobs/{by_default}").json["expires_at"] == rfc3339(now + 30 * 86_400_000)
    assert api.call("GET", f"/jobs/{within_a_minute}").json["expires_at"] == rfc3339(now + 60_000)
    assert api.call("GET", f"/jobs/{first}").json["expires_at"] == rfc3339(now + 86_400_000)


def test_a_dependent_story_is_neither_scored_nor_deduplicated(api: Api) -> None:
    """The same template becomes another story for each parent, and has no words to count yet."""
    parents = [api.submit(), api.submit()]
    story = {"title": "{{parents.draft.output}}", "content": "{{parents.draft.output}}"}

    replies = [
        api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": story, "depends_on": {"draft": parent}}) for parent in parents
    ]

    assert [reply.status for reply in replies] == [202, 202], replies[0].text
    assert replies[0].json["job_id"] != replies[1].json["job_id"]
    assert all(reply.json.get("preliminary") is None for reply in replies)


def test_a_job_with_a_cancelled_parent_is_cancelled_at_submission(api: Api) -> None:
    first = api.submit()
    api.call("DELETE", f"/jobs/{first}")

    reply = submit_dependent(api, [first])
    anyway = submit_dependent(api, [first], on_parent_failure="run_anyway")

    assert (reply.json["status"], anyway.json["status"]) == ("cancelled", "queued")
    error = api.call("GET", f"/jobs/{reply.json['job_id']}").json["error"]
    assert (error["code"], error["class"], error["retryable"]) == ("dependency_failed", "dependency", False)
    assert first in error["message"]


def test_a_repeated_idempotency_key_returns_the_first_response(api: Api) -> None:
    first = api.submit()
    replies = [api.call("POST", "/jobs", {"prompt": "x", "depends_on": [first]}, idempotency_key="k") for _ in range(2)]
    work(api)
    publish_change(api, first)
    work(api)
    late = api.call("POST", "/jobs", {"prompt": "x", "depends_on": [first]}, idempotency_key="k")

    assert len({reply.json["job_id"] for reply in (*replies, late)}) == 1
    assert [reply.json["status"] for reply in (*replies, late)] == ["waiting"] * 3


@pytest.mark.parametrize("value", [None, [], {}])
def test_an_empty_depends_on_makes_a_plain_job(api: Api, value: Any) -> None:
    reply = submit_dependent(api, value, prompt="{{anything}}", on_parent_failure=None)

    assert reply.json["status"] == "queued"


# ---- invalid dependencies


def test_unknown_parents_and_parents_of_others_get_the_same_error(api: Api) -> None:
    mine, colleagues = api.submit(), api.submit(token="colleague")
    strangers = api.submit(token="stranger")
    missing = f"job_{9:026}"

    reply = submit_dependent(api, {"a": mine, "b": colleagues, "c": strangers, "d": missing})

    messages = [detail["message"] for detail in reply.json["error"]["details"]]
    unknown = zip("bcd", (colleagues, strangers, missing), strict=True)
    assert messages == [f"names {job_id} ({name}), and there is no such job here" for name, job_id in unknown]
    assert submit_dependent(api, [mine, colleagues], token="operator").status == 202


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        (["job_1"], "depends_on.0", "the id of a job"),
        ([None], "depends_on.0", "the id of a job"),
        ({"a": 5}, "depends_on.a", "the id of a job"),
        ({"a b": f"job_{1:026}"}, "depends_on.a b", "1 to 64 letters"),
        ({"": f"job_{1:026}"}, "depends_on.", "1 to 64 letters"),
        ([f"job_{1:026}", f"job_{1:026}"], "depends_on.1", "the same job as depends_on.0"),
        ({"a": f"job_{1:026}", "b": f"job_{1:026}"}, "depends_on.b", "the same job as depends_on.a"),
        ([f"job_{number:026}" for number in range(101)], "depends_on", "a list of at most 100 items"),
        ("job_1", "depends_on", "list"),
    ],
)
def test_an_invalid_depends_on_is_refused(api: Api, given: Any, path: str, message: str) -> None:
    errors = field_errors(submit_dependent(api, given))

    assert message in errors[path]


def test_an_unknown_on_parent_failure_is_refused(api: Api) -> None:
    assert "on_parent_failure" in field_errors(submit_dependent(api, [api.submit()], on_parent_failure="ignore"))


def test_a_template_may_only_name_values_of_its_parents(api: Api) -> None:
    """The error is reported at submission, not after hours of waiting."""
    first = api.submit()

    reply = submit_dependent(api, {"a": first}, prompt="{{parents.b.output}} {{parents.a.text}} {{x}}")

    names = ("parents.b.output", "parents.a.text", "x")
    assert reply.json["error"]["details"] == [
        {"path": "prompt", "message": f"asks for {{{{{name}}}}}; there is {{{{parents.a.output}}}} and the like"} for name in names
    ]
    assert submit_dependent(api, {"a": first}, prompt="{{{{x}} {{parents.a.status}}").status == 202


def test_an_estimate_validates_the_parents(api: Api) -> None:
    assert api.call("POST", "/jobs/estimate", {"prompt": "x", "depends_on": [f"job_{9:026}"]}).status == 400
    assert api.call("POST", "/jobs/estimate", {"prompt": "x", "depends_on": [api.submit()]}).status == 200


# ---- other routes


def test_a_waiting_dependent_job_can_be_changed_and_cancelled(api: Api) -> None:
    first = api.submit()
    second = submit_dependent(api, [first]).json["job_id"]

    later = rfc3339(api.container.clock.now() + 600_000)
    record = api.call("PATCH", f"/jobs/{second}", {"run_at": later, "priority": "high"}).json
    assert (record["status"], record["reason"], record["next_attempt_at"], record["priority"]) == ("waiting", "dependencies", later, "high")
    assert api.call("POST", f"/jobs/{second}/retry").status == 409
    bulk = api.call("POST", "/bulk", {"action": "set_priority", "priority": "urgent", "ids": [second]}, "operator")
    assert bulk.status in (200, 202)
    assert api.job(second).lane == "urgent"
    assert api.call("DELETE", f"/jobs/{second}").json["status"] == "cancelled"

    work(api)
    publish_change(api, first)
    assert api.job(second).status is Status.CANCELLED


def test_lists_and_viewers_do_not_see_depends_on(api: Api) -> None:
    """Lists read job records only; for viewers, dependencies count as part of the job's input."""
    first = api.submit()
    second = submit_dependent(api, [first]).json["job_id"]

    assert [row["depends_on"] for row in api.call("GET", "/jobs").json["data"]] == [None, None]
    assert api.call("GET", f"/jobs/{second}", token="viewer").json["depends_on"] is None
    assert api.call("GET", f"/jobs/{first}").json["depends_on"] == []


def test_the_sweeper_releases_dependents_missed_by_the_change_stream(api: Api) -> None:
    first = api.submit()
    second = submit_dependent(api, [first]).json["job_id"]
    work(api)

    sweep(api, after=130)
    work(api)

    assert api.job(second).status is Status.COMPLETED


def test_dependents_are_released_when_subscribers_cannot_be_notified(api: Api) -> None:
    """A failure of one consumer of the change stream does not stop the others, nor the stream."""
    first = api.submit()
    second = submit_dependent(api, [first]).json["job_id"]
    work(api)

    def broken(*_: Any) -> None:
        raise ValueError

    api.container.subscriptions.controls = broken  # type: ignore[assignment, method-assign]
    api.container.queues.send_to_dead_letter = broken  # type: ignore[assignment, method-assign]
    publish_change(api, first)

    assert api.job(second).status is Status.QUEUED


# ---- the graph


def diamond(api: Api, token: str = "user") -> tuple[str, str, str, str]:
    top = api.submit(token=token)
    left, right = (submit_dependent(api, {"top": top}, token).json["job_id"] for _ in range(2))
    bottom = submit_dependent(api, {"left": left, "right": right}, token).json["job_id"]
    return top, left, right, bottom


def test_a_graph_contains_all_ancestors_and_descendants(api: Api) -> None:
    top, left, right, bottom = diamond(api)
    alone = api.submit()

    whole = graph(api, top)
    edges = {(edge["from"], edge["to"], edge["alias"]) for edge in whole["edges"]}

    assert [node["job_id"] for node in whole["nodes"]] == [top, left, right, bottom]
    assert edges == {(top, left, "top"), (top, right, "top"), (left, bottom, "left"), (right, bottom, "right")}
    assert (whole["job_id"], whole["truncated"]) == (top, False)
    assert whole["nodes"][0] | {"created_at": None} == {
        "job_id": top,
        "job_type": "general",
        "status": "queued",
        "reason": None,
        "priority": "normal",
        "progress_percentage": 0,
        "error_code": None,
        "created_at": None,
        "finished_at": None,
    }
    assert [node["job_id"] for node in graph(api, bottom)["nodes"]] == [top, left, right, bottom]
    assert [node["job_id"] for node in graph(api, left)["nodes"]] == [top, left, bottom]
    assert [node["job_id"] for node in graph(api, alone)["nodes"]] == [alone]


def test_a_graph_shows_the_status_of_each_job(api: Api) -> None:
    top, left, _, bottom = diamond(api)
    api.call("DELETE", f"/jobs/{left}")
    publish_change(api, left)

    nodes = {node["job_id"]: node for node in graph(api, top)["nodes"]}

    assert (nodes[left]["status"], nodes[bottom]["status"]) == ("cancelled", "cancelled")
    assert (nodes[left]["error_code"], nodes[bottom]["error_code"]) == (None, "dependency_failed")


def test_a_viewer_sees_the_graph_without_aliases(api: Api) -> None:
    *_, bottom = diamond(api)

    seen = graph(api, bottom, "viewer")

    assert len(seen["nodes"]) == 4
    assert {edge["alias"] for edge in seen["edges"]} == {None}


def test_a_graph_leaves_out_jobs_of_other_users(api: Api) -> None:
    """An operator's job may depend on jobs of two users, who must not see each other's jobs."""
    mine, colleagues = api.submit(), api.submit(token="colleague")
    both = submit_dependent(api, [mine, colleagues], "operator").json["job_id"]

    assert [node["job_id"] for node in graph(api, mine)["nodes"]] == [mine]
    assert [node["job_id"] for node in graph(api, both, "operator")["nodes"]] == [mine, colleagues, both]
    for token in ("stranger", "colleague"):
        assert api.call("GET", f"/jobs/{mine}/graph", token=token).status == 404


def test_a_graph_leaves_out_deleted_jobs(api: Api) -> None:
    top, left, right, bottom = diamond(api)
    api.call("DELETE", f"/jobs/{bottom}")
    api.call("POST", "/bulk", {"action": "delete", "ids": [bottom]}, "operator")

    assert [node["job_id"] for node in graph(api, top)["nodes"]] == [top, left, right]
    assert all(bottom not in (edge["from"], edge["to"]) for edge in graph(api, top)["edges"])


def test_a_graph_is_truncated_at_200_jobs(api: Api) -> None:
    """The nearest jobs come first, and `truncated` reports missing ones."""
    first = api.submit()
    for _ in range(199):
        submit_dependent(api, [first])
    assert (len(graph(api, first)["nodes"]), graph(api, first)["truncated"]) == (200, False)

    last = submit_dependent(api, [first]).json["job_id"]

    assert (len(graph(api, first)["nodes"]), graph(api, first)["truncated"]) == (200, True)
    assert [node["job_id"] for node in graph(api, last)["nodes"]] == [first, last]
