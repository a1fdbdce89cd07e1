"""Job types `csv_import` and `cache_warmup`.

Each job creates one batch despite crashes, with the rights of its submitter.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.files.upload import Upload
from chalicelib.domain.ids import batch_id_of_job, checked_batch_id, job_id_of_row
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.batches.advance_batch import advance_batch
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.task_runs import parsed_result, slow_offload
from tests.kit.task_types import run_to_end
from tests.kit.world import ALICE, World, kill

UPLOAD = f"upload_{'0' * 25}1"
BOB = Caller(tenant="acme", user="bob", role=Role.USER, key_id="key_3", key_hash="hash3")
MALLORY = Caller(tenant="other", user="alice", role=Role.USER, key_id="key_4", key_hash="hash4")
CSV = b"id,prompt,language\n" + b"".join(b"r%d,Say %d.,Italian\n" % (number, number) for number in range(600))

FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'


def put_upload(world: World, data: bytes = CSV, kind: str = "text/csv", caller: Caller = ALICE) -> str:
    """Store a file through the signed link of an upload."""
    url = world.container.uploads.sign(Upload(id=UPLOAD, tenant=caller.tenant, user=caller.user, content_type=kind, size=len(data)), 900)
    world.container.uploads.put(url, data, kind)
    return UPLOAD


def import_job(world: World, caller: Caller = ALICE, attempts: int = 3, **options: Any) -> Job:
    return world.submit(
        None, input={"upload_id": UPLOAD, **options}, job_type="csv_import", caller=caller, config={"max_attempts": attempts}
    )


def warm_up_job(world: World, prompts: list[Any], **options: Any) -> Job:
    return world.submit(None, input={"prompts": prompts, **options}, job_type="cache_warmup")


def failure(world: World, job: Job) -> tuple[str, str]:
    """Return the error code and the error message of a failed job."""
    error = world.job(job).error
    assert error is not None
    return error.code, error.message


def batches_of(world: World, tenant: str = "acme") -> list[Batch]:
    return world.container.batches.page(tenant, None, 100)[0]


def run_all(world: World, batch_id: str) -> None:
    """Release the rows of a batch and run them."""
    advance_batch(world.container, "acme", batch_id, world.clock.now() + 60_000)
    while world.container.queues.depth("low"):
        world.deliver("low")


def test_an_imported_file_becomes_a_batch_with_the_given_options() -> None:
    """The batch has all rows and belongs to the submitter."""
    world = World()
    put_upload(world)
    job = import_job(world, name="greetings", prompt_template="In {{language}}: {{input}}", config={"max_tokens": 50}, batch_size=100)

    world.deliver()

    (batch,) = batches_of(world)
    assert parsed_result(world, job) == {"batch_id": batch.id, "rows": 600}
    assert (batch.id, batch.total, batch.name, batch.batch_size) == (batch_id_of_job(job.id), 600, "greetings", 100)
    assert (batch.user, batch.key_id, batch.role, batch.lane) == ("alice", "key_1", "user", "low")
    advance_batch(world.container, "acme", batch.id, world.clock.now() + 60_000)
    spec = world.container.job_specs.get(job_id_of_row(batch.id, 599))
    assert spec is not None
    assert (spec.prompt, spec.config.max_tokens) == ("In Italian: Say 599.", 50)
    assert world.job(job).usage is not None
    assert world.provider.requests == []


@pytest.mark.parametrize(
    ("kind", "data", "options", "prompts"),
    [
        ("application/vnd.ms-excel", b"sep=;\r\nPrompt;Ort\r\nHallo, du;K\xc3\xb6ln\r\n", {}, ["Hallo, du"]),
        ("text/csv", b"prompt~b\nx,y~z\n", {"delimiter": "~"}, ["x,y"]),
        (
            "multipart/form-data; boundary=b",
            FORM % (b"a.csv", b"prompt\nJanuary\n") + FORM % (b"b.txt", b"February") + b"--b--\r\n",
            {},
            ["January", "February"],
        ),
        (
            "application/x-ndjson",
            b'{"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-4.1", "input": "Hi"}}\n',
            {},
            ["Hi"],
        ),
    ],
)
def test_a_file_of_any_kind_that_a_request_takes_is_imported(kind: str, data: bytes, options: dict[str, Any], prompts: list[str]) -> None:
    world = World()
    put_upload(world, data, kind)
    import_job(world, **options)

    world.deliver()

    (batch,) = batches_of(world)
    rows = world.container.batch_rows.get_part("acme", batch.id, 0)
    assert [row.prompt for row in rows or ()] == prompts
    assert batch.model == ("gpt-4.1" if "ndjson" in kind else "gpt-4o-mini")


@pytest.mark.parametrize("seconds", [number / 4 + 0.1 for number in range(36)])
def test_an_import_creates_one_batch_wherever_its_worker_is_killed(seconds: float) -> None:
    """The batch has all rows, each once."""
    world = World(offload=slow_offload)
    put_upload(world)
    job = import_job(world)
    kill(world, seconds)

    run_to_end(world, [job])

    (batch,) = batches_of(world)
    assert parsed_result(world, job) == {"batch_id": batch.id, "rows": 600}
    rows = [row.number for part in range(3) for row in world.container.batch_rows.get_part("acme", batch.id, part) or []]
    assert rows == list(range(600))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("port", "method"), [("batches", "create"), ("batch_rows", "put_part"), ("batch_rows", "put_options")])
def test_a_store_failure_during_an_import_creates_no_second_batch(port: str, method: str, after: bool) -> None:
    """The second attempt finds what the first one has written."""
    world = World()
    put_upload(world)
    job = import_job(world)

    with refusing(getattr(world.container, port), method, after=after):
        run_to_end(world, [job])

    assert (world.job(job).attempt, parsed_result(world, job)["rows"], len(batches_of(world))) == (2, 600, 1)


def test_a_repeated_import_does_not_change_an_existing_batch() -> None:
    """The file has been replaced, but rows of the batch may have run."""
    world = World(offload=slow_offload)
    put_upload(world, b"prompt\nfirst\n")
    job = import_job(world)
    with refusing(world.container.results, "put", 1):
        world.deliver()
    put_upload(world, b"prompt\nsecond\nthird\n")

    run_to_end(world, [job])

    assert parsed_result(world, job) == {"batch_id": batch_id_of_job(job.id), "rows": 1}


def test_invalid_rows_fail_the_import_and_the_first_are_named() -> None:
    """The import is not retried, and no row is accepted."""
    world = World()
    put_upload(world, b"prompt,priority\n" + b"hello,soon\n" * 40)
    job = import_job(world)

    world.deliver()

    code, message = failure(world, job)
    assert (code, world.job(job).tries) == ("request_invalid", 1)
    assert "line 2.priority must be" in message
    assert message.endswith("more.")
    assert len(message) <= 300
    assert batches_of(world) == []


@pytest.mark.parametrize("caller", [BOB, MALLORY], ids=["another user", "another tenant"])
def test_an_upload_of_another_user_or_tenant_cannot_be_imported(caller: Caller) -> None:
    """Even if its id is known."""
    world = World()
    put_upload(world)
    job = import_job(world, caller)

    world.deliver()

    assert failure(world, job)[0] == "request_invalid"
    assert "There is no upload" in failure(world, job)[1] or UPLOAD in failure(world, job)[1]
    assert batches_of(world) == batches_of(world, "other") == []


def test_imported_rows_have_no_more_rights_than_the_submitter() -> None:
    """A user cannot start a clean-up through a batch."""
    world = World()
    put_upload(world, b'{"input": {"days": 0}}\n', "application/x-ndjson")
    job = import_job(world, type="data_cleanup")

    world.deliver()

    assert failure(world, job)[0] == "request_invalid"
    assert "operator" in failure(world, job)[1]


@pytest.mark.parametrize("option", [{"dry_run": True}, {"webhook_url": "https://a.example/"}, {"notify": ["email:a@b.example"]}], ids=str)
def test_a_json_file_cannot_set_recipients_or_dry_run(option: dict[str, Any]) -> None:
    """These fields of a file were not checked at submission."""
    world = World()
    put_upload(world, json.dumps({"items": ["hello"], **option}).encode(), "application/json")
    job = import_job(world)

    world.deliver()

    (name,) = option
    assert f"{name} cannot be set in the file" in failure(world, job)[1]
    assert batches_of(world) == []


def test_options_in_a_json_file_are_validated_and_conflicts_are_refused() -> None:
    world = World()
    put_upload(world, json.dumps({"items": ["hello"], "name": "own", "config": {"temperature": 7}}).encode(), "application/json")
    wrong, other = import_job(world), import_job(world, name="another")

    world.deliver()

    assert "config.temperature" in failure(world, wrong)[1]
    assert "two different values" in failure(world, other)[1]


def test_a_batch_that_would_take_months_to_release_is_not_created() -> None:
    """The rows would be deleted before; the job's error has the numbers."""
    world = World()
    put_upload(world, b"prompt\n" + b"x\n" * 1_500)
    job = import_job(world, batch_size=1, delay=3_600)

    world.deliver()

    code, message = failure(world, job)
    assert code == "request_invalid"
    assert "1,500 rows in groups of 1" in message
    assert "62.5 days" in message
    assert batches_of(world) == []


def test_a_cancelled_import_creates_no_batch() -> None:
    world = World(offload=slow_offload)
    put_upload(world)
    job = import_job(world)

    async def scenario() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "work", world.container.queues.receive("work")))
        await asyncio.sleep(4.0)
        cancel_job(world.container, world.job(job))
        await worker

    world.loop.run_until_complete(scenario())

    assert world.job(job).status is Status.CANCELLED
    assert batches_of(world) == []


# ---- warm-ups


def test_a_cache_warm_up_submits_only_uncached_distinct_prompts() -> None:
    """The submitted jobs store their answers in the cache."""
    world = World(*(Script() for _ in range(9)))
    world.submit("Say 1.", config={"cache": True})
    world.deliver()
    job = warm_up_job(world, ["Say 1.", "Say 2.", {"content": "Say 3.", "metadata": {"a": 1}, "id": "three"}, "Say 2."], name="warm")

    world.deliver()

    batch_id = batch_id_of_job(job.id)
    assert parsed_result(world, job) == {"batch_id": batch_id, "cached_already": 1, "submitted": 2}
    run_all(world, batch_id)
    assert [request.prompt for request in world.provider.requests] == ["Say 1.", "Say 2.", "Say 3."]
    again = warm_up_job(world, ["Say 1.", "Say 2.", "Say 3."])
    world.deliver()
    assert parsed_result(world, again) == {"batch_id": None, "cached_already": 3, "submitted": 0}
    assert len(batches_of(world)) == 1


def test_a_warmed_up_request_is_answered_from_the_cache() -> None:
    """Also with options, a template and another model."""
    world = World(*(Script() for _ in range(9)))
    job = warm_up_job(
        world, ["Say 1."], model="gpt-4o", prompt_template="Please: {{input}}", config={"max_tokens": 99, "cache": {"ttl": 60}}
    )
    world.deliver()
    run_all(world, parsed_result(world, job)["batch_id"])
    asked = len(world.provider.requests)

    world.submit("Please: Say 1.", config={"model": "gpt-4o", "max_tokens": 99, "cache": True})
    world.deliver()

    assert len(world.provider.requests) == asked == 1


def test_a_warm_up_requests_answers_again_that_are_too_old_or_deleted() -> None:
    """The same rules apply as for a job that reads the cache."""
    world = World(*(Script() for _ in range(9)))
    first = world.submit("Say 1.", config={"cache": True})
    world.deliver()
    world.clock.advance(100)
    old = warm_up_job(world, ["Say 1."], config={"cache": {"ttl": 60}})
    world.deliver()
    done = world.job(first)
    world.container.jobs.replace(done, replace(done, version=done.version + 1, ttl=world.clock.now() // 1000 - 1))
    gone = warm_up_job(world, ["Say 1."])
    world.deliver()

    assert [parsed_result(world, job)["submitted"] for job in (old, gone)] == [1, 1]


@pytest.mark.parametrize("seconds", [number / 2 + 0.3 for number in range(16)])
def test_a_warm_up_creates_one_batch_wherever_its_worker_is_killed(seconds: float) -> None:
    """Its output states what was submitted."""
    world = World(Script(), offload=slow_offload)
    world.submit("Say 1.", config={"cache": True})
    world.deliver()
    job = warm_up_job(world, ["Say 1.", "Say 2.", "Say 3."])
    kill(world, seconds)

    run_to_end(world, [job])

    (batch,) = batches_of(world)
    assert parsed_result(world, job) == {"batch_id": batch.id, "cached_already": 1, "submitted": 2}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"config": {"cache": False}}, "input.config.cache must not be off"),
        ({"type": "export"}, "export takes an input"),
        ({"type": "poetry"}, "does not exist"),
        ({"config": {"durable": True, "openai": {"store": False}}}, "config.openai.store"),
    ],
    ids=str,
)
def test_an_invalid_warm_up_fails_with_a_reason(options: dict[str, Any], part: str) -> None:
    world = World()
    job = warm_up_job(world, ["Say 1."], **options)

    world.deliver()

    code, message = failure(world, job)
    assert (code, part in message) == ("request_invalid", True), message
    assert batches_of(world) == []


def test_a_stale_warm_up_worker_does_not_change_the_existing_batch() -> None:
    """Its successor created the batch while it was still reading the cache."""
    world = World(*(Script() for _ in range(9)))
    lookup, done = world.container.cache.get, list[str]()
    job = warm_up_job(world, ["Say 1.", "Say 2."])

    def create_then_look_up(tenant: str, key: str) -> Any:
        """Let another worker create the batch during the first lookup."""
        if not done:
            done.append(key)
            world.container.batches.create(_batch_of_another_worker(world, job))
        return lookup(tenant, key)

    world.container.cache.get = create_then_look_up  # type: ignore[method-assign]
    world.deliver()

    (batch,) = batches_of(world)
    assert (batch.total, world.container.batch_rows.get_part("acme", batch.id, 0)) == (1, None)
    assert parsed_result(world, job) == {"batch_id": batch.id, "cached_already": 1, "submitted": 1}


def _batch_of_another_worker(world: World, job: Job) -> Batch:
    now = world.clock.now()
    who = {"tenant": "acme", "user": "alice", "key_id": "key_1", "role": "user"}
    return Batch(id=batch_id_of_job(job.id), total=1, created_at=now, updated_at=now, **who)


# ---- ids


def test_the_batch_id_of_a_job_is_stable_and_unique() -> None:
    """No row of the batch has the id of the job, nor of a neighbour of the job."""
    jobs = [job_id_of_row(f"batch_01M80EHY9G6SEBMSDB5MBC{'0' * 4}", number) for number in range(500)]
    batch_ids = [batch_id_of_job(job) for job in jobs]

    assert batch_ids == [batch_id_of_job(job) for job in jobs]
    assert len({checked_batch_id(batch) for batch in batch_ids}) == len(jobs)
    assert {batch.removeprefix("batch_")[:10] for batch in batch_ids} == {jobs[0].removeprefix("job_")[:10]}
    assert not {job_id_of_row(batch, number) for batch in batch_ids for number in range(500)} & set(jobs)
