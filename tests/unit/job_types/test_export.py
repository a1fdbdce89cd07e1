"""Job types `export` and `data_cleanup`.

An export holds the rows that its submitter may read, in the requested format, despite crashes.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Forbidden, InvalidRequest
from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.job_types import data_cleanup
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.failing_store import refusing
from tests.kit.task_types import run_to_end
from tests.kit.world import ALICE, World, kill

OLGA = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash2")
DAY = 86_400


def completed_job(world: World, text: str = "fine", *, user: str = "alice", tenant: str = "acme", **changes: Any) -> Job:
    """Store a job that completes now with this text."""
    now, job_id = world.clock.now(), f"job_{world.container.new_id()}"
    values: dict[str, Any] = {
        "id": job_id,
        "tenant": tenant,
        "user": user,
        "key_id": "key_1",
        "type": "general",
        "lane": "normal",
        "model": "gpt-4o-mini",
        "status": Status.COMPLETED,
        "created_at": now,
        "queued_at": now,
        "expires_at": now + DAY * 1000,
        "due_at": None,
        "attempt": 1,
        "started_at": now,
        "finished_at": now,
        "length": len(text),
        "usage": Usage(input=3, output=4),
        "cost": 1_500,
    }
    job = Job(**{**values, **changes})
    world.container.jobs.create(job)
    world.container.results.put(Result(job_id=job.id, attempt=1, text=text, parsed={"a": 1} if text == "fine" else None), tenant)
    world.container.job_specs.put(job.id, tenant, JobSpec(prompt=f"prompt of {text}", config=JobConfig(model="m", max_tokens=9)), 0)
    return job


def run_export(world: World, given: dict[str, Any], caller: Caller = ALICE, **options: Any) -> tuple[Job, dict[str, Any]]:
    """Run an export, and return its job and its output."""
    job = world.submit(None, input=given, options=options, job_type="export", caller=caller)
    run_to_end(world, [job])
    kept = world.container.results.get(job.id, world.job(job).attempt)
    assert world.job(job).status is Status.COMPLETED, world.job(job).error
    assert kept is not None
    return job, kept.parsed


def content(world: World, job: Job, name: str) -> str:
    return world.container.job_files.kept["acme", job.id, name].decode()


def test_a_csv_export_has_one_line_per_readable_job_in_the_given_order() -> None:
    """Jobs of other users and tenants are counted as not found."""
    world = World()
    jobs = [completed_job(world, "first"), completed_job(world, 'fine, "really"\nyes', tags=("a", "b"))]
    others = [completed_job(world, user="bob"), completed_job(world, tenant="other")]

    job, output = run_export(world, {"ids": [one.id for one in (*reversed(jobs), *others)]}, include=["output", "prompt"])

    rows = list(csv.DictReader(io.StringIO(content(world, job, "export.csv"), newline="")))
    assert [row["output"] for row in rows] == ['fine, "really"\nyes', "first"]
    assert [row["job_id"] for row in rows] == [one.id for one in reversed(jobs)]
    assert (rows[0]["tags"], rows[1]["tags"], rows[0]["cost"], rows[0]["input_tokens"]) == ('["a","b"]', "[]", "0.0000015", "3")
    assert rows[1]["prompt"] == "prompt of first"
    assert (output["rows"], output["not_found"], output["more"], output["object"]) == (2, 2, False, "export.csv")
    assert output["bytes"] == len(content(world, job, "export.csv").encode())
    assert f"/acme/{job.id}/export.csv" in output["link"]


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("jsonl", lambda text: [json.loads(line) for line in text.splitlines()])])
def test_json_and_jsonl_exports_contain_the_parsed_results(form: str, read: Any) -> None:
    world = World()
    jobs = [completed_job(world), completed_job(world, "plain")]

    job, output = run_export(world, {"filter": {"type": "general"}}, format=form, include=["output", "parsed"])

    rows = read(content(world, job, f"export.{form}"))
    assert [(row["job_id"], row["output"], row["parsed"]) for row in rows] == [(jobs[1].id, "plain", None), (jobs[0].id, "fine", {"a": 1})]
    assert output["format"] == form


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_an_export_without_matches_is_a_valid_empty_file(form: str) -> None:
    world = World()

    job, output = run_export(world, {"filter": {"tag": "none"}}, format=form)

    text = content(world, job, f"export.{form}")
    assert output["rows"] == 0
    assert text.startswith("job_id,") if form == "csv" else text.split() in ([], ["[", "]"])


@pytest.mark.parametrize(("delimiter", "character"), [("semicolon", ";"), ("|", "|"), (None, ",")])
@pytest.mark.parametrize("bom", [True, False])
def test_a_csv_export_is_written_for_the_program_that_opens_it(delimiter: str | None, character: str, bom: bool) -> None:
    world = World()
    listed = completed_job(world, "Grüße; 5 | €, bitte")

    job, output = run_export(world, {"ids": [listed.id]}, bom=bom, **({"delimiter": delimiter} if delimiter else {}))

    text = content(world, job, "export.csv")
    assert text.startswith("\ufeffjob_id" if bom else "job_id")
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=character)
    assert (row["job_id"], row["output"]) == (listed.id, "Grüße; 5 | €, bitte")
    assert output["bytes"] == len(text.encode())


@pytest.mark.parametrize("options", [{"delimiter": "two"}, {"delimiter": ""}, {"bom": "yes"}])
def test_an_export_in_an_impossible_style_is_refused_at_submission(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        World().submit(None, input={"filter": {}}, options=options, job_type="export", caller=ALICE)

    assert [detail.path for detail in caught.value.details] == [f"options.{name}" for name in options]


@pytest.mark.parametrize("text", ["=1+1", "+1 1", "-x", "@x", "\t=1", "\r=1"])
def test_csv_cells_that_look_like_formulas_are_escaped(text: str) -> None:
    """A spreadsheet must not execute what a model or a user wrote."""
    world = World()
    listed = completed_job(world, text)

    job, _ = run_export(world, {"ids": [listed.id]})

    (row,) = csv.DictReader(io.StringIO(content(world, job, "export.csv"), newline=""))
    assert row["output"] == f"'{text}"


def test_an_export_contains_only_jobs_readable_by_its_submitter() -> None:
    """A user gets their own jobs, an operator those of the tenant."""
    world = World()
    own, other = completed_job(world), completed_job(world, user="bob")
    completed_job(world, tenant="other")

    own_export, _ = run_export(world, {"filter": {"type": "general"}}, format="jsonl")
    tenant_export, _ = run_export(world, {"filter": {"type": "general"}}, OLGA, format="jsonl")

    def ids(job: Job) -> set[str]:
        return {json.loads(line)["job_id"] for line in content(world, job, "export.jsonl").splitlines()}

    assert (ids(own_export), ids(tenant_export)) == ({own.id}, {own.id, other.id})


def test_an_export_filters_by_batch_status_and_tag() -> None:
    world = World()
    wanted = completed_job(world, batch_id="batch_1", tags=("x",))
    completed_job(world, batch_id="batch_2")
    world.clock.advance(100)
    late = completed_job(world, batch_id="batch_1", status=Status.FAILED)

    def rows(given: dict[str, Any]) -> list[str]:
        job, _ = run_export(world, given, format="jsonl")
        return [json.loads(line)["job_id"] for line in content(world, job, "export.jsonl").splitlines()]

    assert rows({"batch_id": "batch_1"}) == [late.id, wanted.id]
    assert rows({"filter": {"batch": "batch_1", "status": "failed"}}) == [late.id]
    assert rows({"filter": {"tag": "x"}}) == [wanted.id]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, "input"),
        ({"ids": ["a"], "filter": {}}, "input"),
        ({"ids": []}, "input.ids"),
        ({"filter": {"statuss": "failed"}}, "input.filter.statuss"),
        ({"filter": {"status": "done"}}, "input.filter.status"),
    ],
)
def test_an_invalid_export_input_is_refused_at_submission(given: dict[str, Any], path: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest) as refused:
        World().submit(None, input=given, job_type="export")

    assert path in [detail.path for detail in refused.value.details]


def test_an_invalid_time_filter_fails_the_export_without_a_retry() -> None:
    world = World()
    job = world.submit(None, input={"filter": {"since": "yesterday"}}, job_type="export")
    world.deliver()

    error = world.job(job).error
    assert error is not None
    assert (error.code, world.job(job).attempt, "input.filter.since" in error.message) == ("request_invalid", 1, True)


def test_a_killed_export_leaves_no_partial_file_and_runs_again() -> None:
    world = World()
    jobs = [completed_job(world, f"text {number}") for number in range(40)]
    job = world.submit(None, input={"ids": [one.id for one in jobs]}, options={"include": ["output", "prompt"]}, job_type="export")
    real = world.container.results.get
    delay: list[float] = [0.0]

    async def slow(call: Any, *args: Any) -> Any:
        await asyncio.sleep(delay[0])
        return call(*args)

    world.container = world.container.with_changes(offload=slow)
    delay[0] = 0.1
    kill(world, 2.0)
    delay[0] = 0.0
    before = dict(world.container.job_files.kept)
    run_to_end(world, [job])

    assert before == {}
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 2)
    assert len(content(world, job, "export.csv").splitlines()) == 41
    assert real(job.id, 1) is not None


@pytest.mark.parametrize(
    ("lengths", "requests"),
    [
        ([10] * 250, [100, 100, 50]),
        ([200_000] * 5, [2, 2, 1]),
        ([600_000, 10, 600_000], [1, 1, 1]),
        ([0] * 3, [3]),
    ],
)
def test_results_are_read_in_groups_limited_by_number_and_size(lengths: list[int], requests: list[int]) -> None:
    """At most a hundred at once, and fewer if their job records say that they are long."""
    world = World()
    jobs = [completed_job(world, "x", length=length) for length in lengths]
    asked, real = [], world.container.results.get_many

    def get_many(attempts: Any) -> Any:
        asked.append(len(attempts))
        return real(attempts)

    world.container.results.get_many = get_many  # type: ignore[method-assign]
    run_export(world, {"ids": [one.id for one in jobs]})

    assert asked == requests


def test_results_that_are_not_exported_are_not_read() -> None:
    """The results of unfinished jobs are not read either."""
    world = World()
    done, running = completed_job(world), completed_job(world, status=Status.PROCESSING, finished_at=None, length=None)

    with refusing(world.container.results, "get_many", 0) as asked:
        run_export(world, {"ids": [done.id]}, include=["prompt"])
        job, _ = run_export(world, {"ids": [running.id]})

    assert asked == [0]
    assert "fine" not in content(world, job, "export.csv")


@pytest.mark.parametrize(
    ("port", "method"), [("jobs", "get_many"), ("results", "get_many"), ("job_files", "create"), ("job_files", "link")]
)
def test_an_export_completes_after_a_store_failure(port: str, method: str) -> None:
    world = World()
    listed = completed_job(world)
    job = world.submit(None, input={"ids": [listed.id]}, job_type="export")
    received = world.container.queues.receive("work")

    async def scenario() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "work", received))
        while world.job(job).status is not Status.PROCESSING:
            await asyncio.sleep(0)
        with refusing(getattr(world.container, port), method, 1):
            await worker

    world.loop.run_until_complete(scenario())
    run_to_end(world, [job])

    assert world.job(job).status is Status.COMPLETED
    assert len(content(world, job, "export.csv").splitlines()) == 2


def test_a_cancelled_export_stops_within_seconds_and_leaves_no_file() -> None:
    world = World()
    jobs = [completed_job(world, f"text {number}") for number in range(200)]
    job = world.submit(None, input={"ids": [one.id for one in jobs]}, options={"include": ["output", "prompt"]}, job_type="export")

    async def slow(call: Any, *args: Any) -> Any:
        await asyncio.sleep(0.05)
        return call(*args)

    world.container = world.container.with_changes(offload=slow)

    async def scenario() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "work", world.container.queues.receive("work")))
        await asyncio.sleep(2)
        cancel_job(world.container, world.job(job))
        asked = world.clock.now()
        await worker
        assert world.clock.now() - asked < 3_000

    world.loop.run_until_complete(scenario())

    assert (world.job(job).status, world.container.job_files.kept) == (Status.CANCELLED, {})


# ---- clean-ups


def old_job(world: World, days: float, status: Status = Status.COMPLETED, **changes: Any) -> Job:
    """Store a job that ended this many days ago."""
    at = world.clock.now() - round(days * DAY * 1000)
    return completed_job(world, status=status, created_at=at, finished_at=at, **changes)


def clean_up(world: World, caller: Caller = OLGA, **given: Any) -> dict[str, Any]:
    """Run a clean-up, and return its output."""
    job = world.submit(None, input=given, job_type="data_cleanup", caller=caller)
    run_to_end(world, [job])
    kept = world.container.results.get(job.id, world.job(job).attempt)
    assert world.job(job).status is Status.COMPLETED, world.job(job).error
    assert kept is not None
    return dict(kept.parsed)


def test_a_clean_up_deletes_old_ended_jobs_with_all_their_data() -> None:
    """Recent jobs, unfinished jobs and those of other tenants stay."""
    world = World()
    expired = [old_job(world, 31), old_job(world, 8, Status.FAILED)]
    kept = [old_job(world, 29), old_job(world, 6, Status.CANCELLED), old_job(world, 99, tenant="other"), world.submit()]

    output = clean_up(world)

    assert (output["deleted"], output["matched"], output["more"]) == (2, 2, False)
    assert output["by_status"] == {"completed": 1, "failed": 1}
    assert [world.container.jobs.get(job.id) for job in expired] == [None, None]
    assert all(world.container.jobs.get(job.id) is not None for job in kept)
    assert world.container.job_data.rows(expired[0].id) == []


def test_a_dry_run_clean_up_counts_but_deletes_nothing() -> None:
    world = World()
    matching = old_job(world, 3)

    output = clean_up(world, days=2, dry_run=True)

    assert (output["dry_run"], output["matched"], output["deleted"]) == (True, 1, 0)
    assert world.container.jobs.get(matching.id) is not None


def test_a_second_clean_up_finds_nothing() -> None:
    world = World()
    for _ in range(150):
        old_job(world, 40)

    assert (clean_up(world)["deleted"], clean_up(world)["deleted"]) == (150, 0)


def test_only_an_operator_may_clean_up() -> None:
    """A clean-up that an operator submits on behalf of a user fails as well."""
    world = World()
    with pytest.raises(Forbidden):
        world.submit(None, input={}, job_type="data_cleanup")

    job = world.submit(None, input={}, job_type="data_cleanup", caller=OLGA, user="alice")
    world.deliver()
    error = world.job(job).error
    assert error is not None
    assert error.code == "request_invalid"


def test_a_clean_up_is_completed_after_its_worker_was_killed() -> None:
    world = World()
    jobs = [old_job(world, 40) for _ in range(200)]
    job = world.submit(None, input={}, job_type="data_cleanup", caller=OLGA)

    async def slow(call: Any, *args: Any) -> Any:
        await asyncio.sleep(0.05)
        return call(*args)

    quick, world.container = world.container, world.container.with_changes(offload=slow)
    kill(world, 1.5)
    left = sum(world.container.jobs.get(one.id) is not None for one in jobs)
    world.container = quick
    run_to_end(world, [job])

    assert 0 < left < 200
    assert world.job(job).status is Status.COMPLETED
    assert all(world.container.jobs.get(one.id) is None for one in jobs)


def counted_reads(world: World) -> list[str]:
    """Record the ids of all job records that are read in pages."""
    real, read = world.container.jobs.get_many, list[str]()

    def get_many(ids: Any, *, consistent: bool = False) -> list[Job]:
        read.extend(ids)
        return real(ids, consistent=consistent)

    world.container.jobs.get_many = get_many  # type: ignore[method-assign]
    return read


def test_a_clean_up_reads_only_jobs_that_match() -> None:
    """Not the completed ones between the two ages, of which there may be millions."""
    world = World()
    matching = [old_job(world, 8 + number / 100, status) for number in range(30) for status in (Status.FAILED, Status.EXPIRED)]
    matching += [old_job(world, 40, Status.INCOMPLETE), old_job(world, 41)]
    for number in range(300):
        old_job(world, 8 + number / 20)
        old_job(world, number / 50, Status.CANCELLED)
    read = counted_reads(world)

    output = clean_up(world, dry_run=True)

    assert (output["looked_at"], output["matched"], output["more"], output["next_cursor"]) == (len(matching), len(matching), False, None)
    assert {job.id for job in matching} <= set(read)
    assert len(read) < len(matching) + 10  # and the clean-up's own record


def test_one_clean_up_deletes_a_bounded_number_and_the_next_goes_on_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor of one is the input of the next; each job is looked at once."""
    monkeypatch.setattr(data_cleanup, "MAX_DELETED", 300)
    world = World()
    statuses = (Status.FAILED, Status.EXPIRED, Status.INCOMPLETE, Status.COMPLETED)
    jobs = [old_job(world, 40 + number / 1_000, statuses[number % 4]) for number in range(1_000)]

    outputs, cursor = [], {}
    while not outputs or outputs[-1]["more"]:
        outputs.append(clean_up(world, dry_run=True, **cursor))
        cursor = {"cursor": outputs[-1]["next_cursor"]}

    assert len(outputs) >= 4
    assert all(output["matched"] <= 300 for output in outputs)
    assert sum(output["looked_at"] for output in outputs) == sum(output["matched"] for output in outputs) == len(jobs)


def test_a_clean_up_stops_in_time_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow store makes it shorter; it never runs into the end of its worker's invocation."""
    world = World()
    for number in range(900):
        old_job(world, 40 + number / 1_000, Status.FAILED)
    real = world.container.jobs.page

    def slow(query: Any) -> Any:
        world.clock.advance(25)
        return real(query)

    world.container.jobs.page = slow  # type: ignore[method-assign]
    began = world.clock.now()
    output = clean_up(world)

    assert world.clock.now() - began < 100_000
    assert (output["deleted"], output["more"]) == (300, True)
    assert output["next_cursor"].startswith("failed:")
    assert clean_up(world, cursor=output["next_cursor"])["deleted"] == 300


@pytest.mark.parametrize("cursor", ["flying:1", "x", "queued:", "processing:0001763800000#job_1"])
def test_a_foreign_cursor_is_refused_by_a_clean_up(cursor: str) -> None:
    world = World()
    job = world.submit(None, input={"cursor": cursor}, job_type="data_cleanup", caller=OLGA)

    world.deliver()

    error = world.job(job).error
    assert error is not None
    assert (error.code, "input.cursor" in error.message) == ("request_invalid", True)
