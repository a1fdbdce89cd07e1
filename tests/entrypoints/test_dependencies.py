"""Jobs that run after others, and their graph, through `app.py`."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import rfc3339
from tests.entrypoints.test_triggers import change
from tests.kit.http import CONTEXT, Api, Reply
from tests.kit.provider import Script
from tests.kit.work import sweep, work


def asked(api: Api, depends_on: Any, token: str = "user", prompt: str = "x", **fields: Any) -> Reply:
    return api.call("POST", "/jobs", {"prompt": prompt, "depends_on": depends_on, **fields}, token)


def details(reply: Reply) -> dict[str, str]:
    assert reply.status == 400, reply.text
    return {detail["path"]: detail["message"] for detail in reply.json["error"]["details"]}


def told(api: Api, job_id: str) -> None:
    """The change stream says how it stands."""
    api.module.on_job_change({"Records": [change(None, api.head(job_id))]}, CONTEXT)


def graph(api: Api, job_id: str, token: str = "user") -> dict[str, Any]:
    reply = api.call("GET", f"/jobs/{job_id}/graph", token=token)
    assert reply.status == 200, reply.text
    return dict(reply.json)


# ---- submitting


def test_a_chain_from_the_submission_to_the_last_answer(api: Api) -> None:
    api.container.provider.scripts[:] = [Script(deltas=("first answer",)), Script(deltas=("second",))]
    first = api.submit()
    reply = asked(api, {"one": first}, prompt="Go on from {{parents.one.output}}.", **{"async": True})
    second = reply.json["job_id"]

    assert (reply.status, reply.json["status"], reply.json["queue_position"]) == (202, "waiting", None)
    assert reply.json["estimated_completion_at"] is None
    record = api.call("GET", f"/jobs/{second}?include=prompt").json
    assert (record["status"], record["reason"], record["depends_on"]) == ("waiting", "dependencies", [first])
    assert record["prompt"] == "Go on from {{parents.one.output}}."
    assert api.call("GET", f"/jobs/{second}/status").json["estimated_seconds_remaining"] is None

    work(api)
    told(api, first)
    work(api)

    assert api.call("GET", f"/jobs/{second}/result").json["output"] == "second"
    assert api.container.provider.requests[1].prompt == "Go on from first answer."


def test_in_a_list_the_id_is_the_name(api: Api) -> None:
    first = api.submit()

    reply = asked(api, [first], prompt=f"{{{{parents.{first}.output}}}}")

    assert reply.status == 202


def test_a_job_with_parents_has_thirty_days(api: Api) -> None:
    """They may have to wait themselves; unless something else is said."""
    first, now = api.submit(), api.container.clock.now()

    patient, hasty = asked(api, [first]).json["job_id"], asked(api, [first], expires_in=60).json["job_id"]

    assert api.call("GET", f"/jobs/{patient}").json["expires_at"] == rfc3339(now + 30 * 86_400_000)
    assert api.call("GET", f"/jobs/{hasty}").json["expires_at"] == rfc3339(now + 60_000)
    assert api.call("GET", f"/jobs/{first}").json["expires_at"] == rfc3339(now + 86_400_000)


def test_of_a_story_that_is_still_to_be_written_nothing_is_said_or_taken_for_granted(api: Api) -> None:
    """The same template is not the same story, and no words of it are there to be counted."""
    parents = [api.submit(), api.submit()]
    story = {"title": "{{parents.draft.output}}", "content": "{{parents.draft.output}}"}

    replies = [
        api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": story, "depends_on": {"draft": parent}}) for parent in parents
    ]

    assert [reply.status for reply in replies] == [202, 202], replies[0].text
    assert replies[0].json["job_id"] != replies[1].json["job_id"]
    assert all(reply.json.get("preliminary") is None for reply in replies)


def test_a_parent_that_has_failed_already_cancels_it_at_once(api: Api) -> None:
    first = api.submit()
    api.call("DELETE", f"/jobs/{first}")

    reply = asked(api, [first])
    anyway = asked(api, [first], on_parent_failure="run_anyway")

    assert (reply.json["status"], anyway.json["status"]) == ("cancelled", "queued")
    error = api.call("GET", f"/jobs/{reply.json['job_id']}").json["error"]
    assert (error["code"], error["class"], error["retryable"]) == ("dependency_failed", "dependency", False)
    assert first in error["message"]


def test_a_repeated_submission_is_answered_as_the_first(api: Api) -> None:
    first = api.submit()
    replies = [api.call("POST", "/jobs", {"prompt": "x", "depends_on": [first]}, idempotency_key="k") for _ in range(2)]
    work(api)
    told(api, first)
    work(api)
    late = api.call("POST", "/jobs", {"prompt": "x", "depends_on": [first]}, idempotency_key="k")

    assert len({reply.json["job_id"] for reply in (*replies, late)}) == 1
    assert [reply.json["status"] for reply in (*replies, late)] == ["waiting"] * 3


@pytest.mark.parametrize("value", [None, [], {}])
def test_nothing_to_depend_on_is_a_plain_job(api: Api, value: Any) -> None:
    reply = asked(api, value, prompt="{{anything}}", on_parent_failure=None)

    assert reply.json["status"] == "queued"


# ---- what is refused


def test_unknown_parents_are_named_one_by_one_and_somebody_elses_look_the_same(api: Api) -> None:
    mine, colleagues = api.submit(), api.submit(token="colleague")
    strangers = api.submit(token="stranger")
    nobody = f"job_{9:026}"

    reply = asked(api, {"a": mine, "b": colleagues, "c": strangers, "d": nobody})

    messages = [detail["message"] for detail in reply.json["error"]["details"]]
    unknown = zip("bcd", (colleagues, strangers, nobody), strict=True)
    assert messages == [f"names {job_id} ({name}), and there is no such job here" for name, job_id in unknown]
    assert asked(api, [mine, colleagues], token="operator").status == 202


@pytest.mark.parametrize(
    ("given", "path", "word"),
    [
        (["job_1"], "depends_on.0", "the id of a job"),
        ([None], "depends_on.0", "the id of a job"),
        ({"a": 5}, "depends_on.a", "the id of a job"),
        ({"a b": f"job_{1:026}"}, "depends_on.a b", "1 to 64 letters"),
        ({"": f"job_{1:026}"}, "depends_on.", "1 to 64 letters"),
        ([f"job_{1:026}", f"job_{1:026}"], "depends_on.1", "the same job as depends_on.0"),
        ({"a": f"job_{1:026}", "b": f"job_{1:026}"}, "depends_on.b", "the same job as depends_on.a"),
        ([f"job_{number:026}" for number in range(101)], "depends_on", "100 jobs, not 101"),
        ("job_1", "depends_on", "list"),
    ],
)
def test_what_names_no_parents(api: Api, given: Any, path: str, word: str) -> None:
    wrong = details(asked(api, given))

    assert word in wrong[path]


def test_what_to_do_otherwise_is_one_of_two_words(api: Api) -> None:
    assert "on_parent_failure" in details(asked(api, [api.submit()], on_parent_failure="ignore"))


def test_a_template_may_name_only_what_there_will_be(api: Api) -> None:
    """Told at the submission, not after hours of waiting."""
    first = api.submit()

    reply = asked(api, {"a": first}, prompt="{{parents.b.output}} {{parents.a.text}} {{x}}")

    names = ("parents.b.output", "parents.a.text", "x")
    assert reply.json["error"]["details"] == [
        {"path": "prompt", "message": f"asks for {{{{{name}}}}}; there is {{{{parents.a.output}}}} and the like"} for name in names
    ]
    assert asked(api, {"a": first}, prompt="{{{{x}} {{parents.a.status}}").status == 202


def test_an_estimate_looks_at_the_parents_too(api: Api) -> None:
    assert api.call("POST", "/jobs/estimate", {"prompt": "x", "depends_on": [f"job_{9:026}"]}).status == 400
    assert api.call("POST", "/jobs/estimate", {"prompt": "x", "depends_on": [api.submit()]}).status == 200


# ---- with the rest of the API


def test_it_is_cancelled_moved_and_changed_while_it_waits(api: Api) -> None:
    first = api.submit()
    second = asked(api, [first]).json["job_id"]

    later = rfc3339(api.container.clock.now() + 600_000)
    record = api.call("PATCH", f"/jobs/{second}", {"run_at": later, "priority": "high"}).json
    assert (record["status"], record["reason"], record["next_attempt_at"], record["priority"]) == ("waiting", "dependencies", later, "high")
    assert api.call("POST", f"/jobs/{second}/retry").status == 409
    bulk = api.call("POST", "/bulk", {"action": "set_priority", "priority": "urgent", "ids": [second]}, "operator")
    assert bulk.status in (200, 202)
    assert api.head(second).lane == "urgent"
    assert api.call("DELETE", f"/jobs/{second}").json["status"] == "cancelled"

    work(api)
    told(api, first)
    assert api.head(second).status is Status.CANCELLED


def test_lists_leave_out_what_is_not_on_the_head(api: Api) -> None:
    """And viewers are not told: whom a job depends on is part of what was asked."""
    first = api.submit()
    second = asked(api, [first]).json["job_id"]

    assert [row["depends_on"] for row in api.call("GET", "/jobs").json["data"]] == [None, None]
    assert api.call("GET", f"/jobs/{second}", token="viewer").json["depends_on"] is None
    assert api.call("GET", f"/jobs/{first}").json["depends_on"] == []


def test_the_sweep_lets_go_what_no_stream_has(api: Api) -> None:
    first = api.submit()
    second = asked(api, [first]).json["job_id"]
    work(api)

    sweep(api, after=130)
    work(api)

    assert api.head(second).status is Status.COMPLETED


def test_one_that_cannot_be_announced_is_let_go_all_the_same(api: Api) -> None:
    """Neither part of what follows the stream stops the other."""
    first = api.submit()
    second = asked(api, [first]).json["job_id"]
    work(api)

    def broken(*_: Any) -> None:
        raise ValueError

    api.container.subscriptions.for_job = broken  # type: ignore[assignment, method-assign]
    api.container.queues.send_to_dead_letter = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(Exception, match="delivers them again"):
        told(api, first)

    assert api.head(second).status is Status.QUEUED


# ---- the graph


def diamond(api: Api, token: str = "user") -> tuple[str, str, str, str]:
    top = api.submit(token=token)
    left, right = (asked(api, {"top": top}, token).json["job_id"] for _ in range(2))
    bottom = asked(api, {"left": left, "right": right}, token).json["job_id"]
    return top, left, right, bottom


def test_a_graph_has_everything_above_and_below(api: Api) -> None:
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


def test_a_graph_says_how_each_stands(api: Api) -> None:
    top, left, _, bottom = diamond(api)
    api.call("DELETE", f"/jobs/{left}")
    told(api, left)

    nodes = {node["job_id"]: node for node in graph(api, top)["nodes"]}

    assert (nodes[left]["status"], nodes[bottom]["status"]) == ("cancelled", "cancelled")
    assert (nodes[left]["error_code"], nodes[bottom]["error_code"]) == (None, "dependency_failed")


def test_a_viewer_sees_the_graph_without_the_names(api: Api) -> None:
    *_, bottom = diamond(api)

    seen = graph(api, bottom, "viewer")

    assert len(seen["nodes"]) == 4
    assert {edge["alias"] for edge in seen["edges"]} == {None}


def test_somebody_elses_jobs_are_no_part_of_it(api: Api) -> None:
    """An operator may have let their own job depend on them; its owner still sees only what is theirs."""
    mine, colleagues = api.submit(), api.submit(token="colleague")
    both = asked(api, [mine, colleagues], "operator").json["job_id"]

    assert [node["job_id"] for node in graph(api, mine)["nodes"]] == [mine]
    assert [node["job_id"] for node in graph(api, both, "operator")["nodes"]] == [mine, colleagues, both]
    for token in ("stranger", "colleague"):
        assert api.call("GET", f"/jobs/{mine}/graph", token=token).status == 404


def test_what_was_deleted_is_left_out(api: Api) -> None:
    top, left, right, bottom = diamond(api)
    api.call("DELETE", f"/jobs/{bottom}")
    api.call("POST", "/bulk", {"action": "delete", "ids": [bottom]}, "operator")

    assert [node["job_id"] for node in graph(api, top)["nodes"]] == [top, left, right]
    assert all(bottom not in (edge["from"], edge["to"]) for edge in graph(api, top)["edges"])


def test_a_graph_has_an_end(api: Api) -> None:
    """Two hundred jobs, the nearest first; and it says that there are more."""
    first = api.submit()
    for _ in range(199):
        asked(api, [first])
    assert (len(graph(api, first)["nodes"]), graph(api, first)["truncated"]) == (200, False)

    last = asked(api, [first]).json["job_id"]

    assert (len(graph(api, first)["nodes"]), graph(api, first)["truncated"]) == (200, True)
    assert [node["job_id"] for node in graph(api, last)["nodes"]] == [first, last]
