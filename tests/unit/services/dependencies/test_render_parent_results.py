"""Parent results in the prompts of dependent jobs.

A prompt is filled when the first attempt starts, and later attempts send the same text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.consumers.release_dependents import release_dependents
from chalicelib.domain.execution.result import Result
from chalicelib.domain.failures import AttemptFailed, DependencyFailed, RequestRefused
from chalicelib.domain.jobs.dependencies import RUN_ANYWAY
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.services.jobs.delete_job import delete_job
from chalicelib.services.jobs.retry_job import retry_job
from chalicelib.services.prompts.render import MAX_PROMPT_BYTES, fill_parent_results, fill_parent_results_if_available
from tests.kit.jobs import job
from tests.kit.provider import Script
from tests.kit.world import World, kill

PLAIN = JobType(name="plain", title="", description="", instructions="")


def parent(
    memory: InMemoryAdapters, name: str, text: str = "", parsed: Any = None, status: Status = Status.COMPLETED, **changes: Any
) -> str:
    """Store an ended job with this answer, and return its id."""
    record = job(**{"id": f"job_{name}", "status": status, "attempt": 2, "length": len(text), "due_at": None, **changes})
    memory.jobs.records[record.id] = record
    memory.results.put(Result(job_id=record.id, attempt=2, text=text, parsed=parsed), "acme")
    return record.id


def child_spec(content: Any, run_anyway: bool = False, options: dict[str, Any] | None = None, **parents: str) -> JobSpec:
    return JobSpec(
        prompt=str(content),
        input=None if isinstance(content, str) else content,
        options=options or {},
        config=JobConfig(model="m", max_tokens=1),
        depends_on=parents,
        on_parent_failure=RUN_ANYWAY if run_anyway else "cancel",
        template={"content": content, "values": {}},
    )


def filled_prompt(memory: InMemoryAdapters, spec: JobSpec, kind: JobType = PLAIN) -> str:
    return fill_parent_results(memory.jobs, memory.results, spec, kind).prompt


def refusal_message(memory: InMemoryAdapters, spec: JobSpec, kind: JobType = PLAIN) -> str:
    with pytest.raises(RequestRefused) as raised:
        fill_parent_results(memory.jobs, memory.results, spec, kind)
    return raised.value.message


def test_templates_are_filled_with_status_id_and_parsed_parts_of_a_parent() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", '{"risk": "high", "n": [1, {"x": 2.5}]}', {"risk": "high", "n": [1, {"x": 2.5}]})

    prompt = filled_prompt(
        memory,
        child_spec(
            "{{parents.a.status}} {{ parents.a.job_id }} {{parents.a.parsed.risk}} {{parents.a.parsed.n}} {{parents.a.parsed.n.1.x}}", a=a
        ),
    )

    assert prompt == 'completed job_a high [1, {"x": 2.5}] 2.5'


def test_placeholders_in_the_output_of_a_parent_are_not_expanded() -> None:
    """A model's answer must not be able to read the result of another parent."""
    memory = InMemoryAdapters()
    a, b = parent(memory, "a", "{{parents.b.output}} {{{{x"), parent(memory, "b", "secret")

    assert filled_prompt(memory, child_spec("{{parents.a.output}} | {{{{y}}}}", a=a, b=b)) == "{{parents.b.output}} {{{{x | {{y}}}}"


def test_parent_output_is_cut_at_the_length_on_the_job_record() -> None:
    """Text that a stalled worker wrote beyond it is ignored, and so is its parsed answer."""
    memory = InMemoryAdapters()
    a = parent(memory, "a", "12345", parsed=12345, length=3)

    assert filled_prompt(memory, child_spec("{{parents.a.output}}", a=a)) == "123"
    assert "has no parsed answer" in refusal_message(memory, child_spec("{{parents.a.parsed}}", a=a))


def test_placeholders_in_an_input_are_filled_before_rendering() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", "code")
    kind = replace(
        PLAIN, input_schema={"type": "object", "properties": {"code": {"type": "string"}}}, render=lambda i, o: f"{o['how']}: {i['code']}"
    )

    template = child_spec({"code": "<{{parents.a.output}}>"}, options={"how": "look"}, a=a)
    spec = fill_parent_results(memory.jobs, memory.results, template, kind)

    assert (spec.prompt, spec.input) == ("look: <code>", {"code": "<code>"})


def test_a_filled_input_that_violates_its_schema_is_refused() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", "far too long")
    kind = replace(PLAIN, input_schema={"type": "object", "properties": {"code": {"type": "string", "maxLength": 30}}})

    assert "input.code" in refusal_message(memory, child_spec({"code": "{{parents.a.output}}" * 3}, a=a), kind)


def test_a_render_error_of_the_job_type_becomes_a_refused_request() -> None:
    """The worker must survive a job type whose `render` raises."""
    memory = InMemoryAdapters()
    a = parent(memory, "a", "x")
    kind = replace(PLAIN, render=lambda content, options: options["missing"])

    assert "no prompt could be made" in refusal_message(memory, child_spec("{{parents.a.output}}", a=a), kind)


def test_a_missing_path_in_a_parsed_answer_is_named_in_the_error() -> None:
    memory = InMemoryAdapters()
    a, b = parent(memory, "a", '{"risk": "low"}', {"risk": "low"}), parent(memory, "b", "prose")

    assert refusal_message(memory, child_spec("{{parents.a.parsed.risks.0}}", a=a)) == (
        "The template asks for {{parents.a.parsed.risks.0}}, which is not there: the answer of job_a has no such part."
    )
    assert "job_b (completed) has no parsed answer" in refusal_message(memory, child_spec("{{parents.b.parsed.risk}}", a=a, b=b))


def test_a_filled_prompt_over_one_megabyte_is_refused() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", "é" * (MAX_PROMPT_BYTES // 4))

    assert len(filled_prompt(memory, child_spec("{{parents.a.output}}" * 2, a=a)).encode()) == MAX_PROMPT_BYTES
    assert "longer than 1 MB" in refusal_message(memory, child_spec("{{parents.a.output}}" * 2 + ".", a=a))
    # 5 GB, refused before it is built
    assert "longer than 1 MB" in refusal_message(memory, child_spec("{{parents.a.output}}" * 20_000, a=a))


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.COMPLETED])
def test_a_parent_not_completed_fails_the_child_unless_run_anyway(status: Status) -> None:
    """A parent may have been retried by hand; with `run_anyway` its partial text is used."""
    memory = InMemoryAdapters()
    a = parent(memory, "a", "half an ans", status=status)

    with pytest.raises(DependencyFailed, match=f"It depends on job_a, which is {status.value}"):
        filled_prompt(memory, child_spec("{{parents.a.output}}", a=a))
    anyway = child_spec("{{parents.a.status}}: {{parents.a.output}}", run_anyway=True, a=a)
    assert filled_prompt(memory, anyway) == f"{status.value}: half an ans"


def test_a_deleted_parent_fails_the_child_or_has_empty_output() -> None:
    """The output is empty for a child with `run_anyway`."""
    memory = InMemoryAdapters()
    deleted = parent(memory, "a", "x", ttl=0, finished_at=5)

    for name in (deleted, "job_never"):
        with pytest.raises(DependencyFailed, match="which is deleted"):
            filled_prompt(memory, child_spec("x", a=name))
        assert filled_prompt(memory, child_spec("{{parents.a.status}} {{parents.a.output}}.", run_anyway=True, a=name)) == "deleted ."
        assert "(deleted) has no parsed answer" in refusal_message(memory, child_spec("{{parents.a.parsed}}", run_anyway=True, a=name))


def test_only_parent_results_used_by_the_template_are_read() -> None:
    """A job may have a hundred parents with long answers."""
    memory = InMemoryAdapters()
    parents = {f"p{number}": parent(memory, str(number), "x") for number in range(100)}
    read_ids: list[str] = []
    get = memory.results.get
    memory.results.get = lambda job_id, attempt: (read_ids.append(job_id), get(job_id, attempt))[1]  # type: ignore[func-returns-value, method-assign]

    assert filled_prompt(memory, child_spec("{{parents.p7.output}} {{parents.p8.status}}", **parents)) == "x completed"
    assert read_ids == ["job_7"]


def test_fill_if_available_returns_the_spec_unchanged_without_its_parent() -> None:
    """A resumed attempt no longer needs its parents."""
    memory = InMemoryAdapters()
    spec = child_spec("{{parents.a.output}}", a="job_gone")

    assert fill_parent_results_if_available(memory.jobs, memory.results, spec, PLAIN) == spec


# ---- in a worker


def run_and_release(world: World, *jobs: Job) -> None:
    """Run the queued jobs, and let the change stream report the ends of `jobs`."""
    world.deliver()
    release_dependents(world.container, [(one.id, None, world.job(one)) for one in jobs])


def test_braces_stay_literal_in_a_prompt_without_parents() -> None:
    world = World()
    world.submit("{{parents.a.output}} {{x}} {{{{")

    world.deliver()

    assert world.provider.requests[0].prompt == "{{parents.a.output}} {{x}} {{{{"


def test_an_unfillable_template_fails_the_job_without_a_provider_call() -> None:
    """The failure is not retryable, because another attempt would fail in the same way."""
    world = World(Script(deltas=("prose",)))
    first = world.submit("a")
    child = world.submit("{{parents.a.parsed.x}}", depends_on={"a": first.id})
    run_and_release(world, first)

    world.deliver()

    failed = world.job(child)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.retryable) == (Status.FAILED, "request_invalid", False)
    assert len(world.provider.requests) == 1
    assert [(row.attempt, row.cost) for row in world.container.results.attempts(child.id)] == [(1, None)]


def test_a_child_retried_before_its_parent_completes_fails_without_a_call() -> None:
    world = World(Script(deltas=("x",)))
    first = world.submit("a")
    child = world.submit("{{parents.a.output}}", depends_on={"a": first.id})
    memory = world.container
    memory.jobs.records[first.id] = replace(world.job(first), status=Status.FAILED, due_at=None, version=2, finished_at=world.clock.now())
    release_dependents(world.container, [(first.id, None, world.job(first))])

    retry_job(world.container, world.job(child))
    world.deliver()

    failed = world.job(child)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (Status.FAILED, "dependency_failed")
    assert [request.prompt for request in world.provider.requests] == []


def test_every_attempt_of_a_child_sends_the_same_filled_prompt() -> None:
    """The input tokens of a killed attempt are estimated from the filled prompt."""
    long_text = "word " * 2_000
    world = World(Script(deltas=(long_text,)), Script(every=5.0), Script())
    first = world.submit("a")
    child = world.submit("{{parents.a.output}}", depends_on={"a": first.id})
    run_and_release(world, first)

    kill(world, 3.0)
    world.sweep(after=130)
    world.deliver()

    assert world.job(child).status is Status.COMPLETED
    assert [request.prompt for request in world.provider.requests[1:]] == [long_text, long_text]
    lost = world.container.results.get(child.id, 1)
    assert lost is not None
    assert lost.usage is not None
    assert lost.usage.input > 1_500


def test_a_durable_attempt_resumes_after_its_parent_was_deleted() -> None:
    world = World(Script(deltas=("x",)), Script(deltas=("a", "b", "c"), every=4.0))
    first = world.submit("a")
    child = world.submit("{{parents.a.output}}", depends_on={"a": first.id}, config={"durable": True})
    run_and_release(world, first)
    kill(world, 6.0)
    delete_job(world.container, world.job(first))

    world.sweep(after=60)
    world.deliver()

    assert (world.job(child).status, world.job(child).attempt) == (Status.COMPLETED, 1)
    assert world.container.results.get(child.id, 1).text == "abc"  # type: ignore[union-attr]


def test_dependency_failed_is_a_non_retryable_attempt_failure() -> None:
    """So it gets an attempt record like every other failure."""
    assert issubclass(DependencyFailed, AttemptFailed)
    assert not DependencyFailed.retryable
