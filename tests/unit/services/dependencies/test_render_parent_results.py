"""What parents said, in the prompts of their children: filled when the child begins, once and for all."""

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
    """A job that has ended with this answer."""
    head = job(**{"id": f"job_{name}", "status": status, "attempt": 2, "length": len(text), "due_at": None, **changes})
    memory.jobs.heads[head.id] = head
    memory.results.put(Result(job_id=head.id, attempt=2, text=text, parsed=parsed), "acme")
    return head.id


def asks(content: Any, anyway: bool = False, options: dict[str, Any] | None = None, **parents: str) -> JobSpec:
    return JobSpec(
        prompt=str(content),
        input=None if isinstance(content, str) else content,
        options=options or {},
        config=JobConfig(model="m", max_tokens=1),
        depends_on=parents,
        on_parent_failure=RUN_ANYWAY if anyway else "cancel",
        template={"content": content, "values": {}},
    )


def filled(memory: InMemoryAdapters, body: JobSpec, kind: JobType = PLAIN) -> str:
    return fill_parent_results(memory.jobs, memory.results, body, kind).prompt


def refusal(memory: InMemoryAdapters, body: JobSpec, kind: JobType = PLAIN) -> str:
    with pytest.raises(RequestRefused) as raised:
        fill_parent_results(memory.jobs, memory.results, body, kind)
    return raised.value.message


def test_everything_that_a_template_may_name() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", '{"risk": "high", "n": [1, {"x": 2.5}]}', {"risk": "high", "n": [1, {"x": 2.5}]})

    prompt = filled(
        memory,
        asks(
            "{{parents.a.status}} {{ parents.a.job_id }} {{parents.a.parsed.risk}} {{parents.a.parsed.n}} {{parents.a.parsed.n.1.x}}", a=a
        ),
    )

    assert prompt == 'completed job_a high [1, {"x": 2.5}] 2.5'


def test_what_a_parent_said_is_no_template() -> None:
    """A model's answer can name nothing, whatever it says; and four braces are two."""
    memory = InMemoryAdapters()
    a, b = parent(memory, "a", "{{parents.b.output}} {{{{x"), parent(memory, "b", "secret")

    assert filled(memory, asks("{{parents.a.output}} | {{{{y}}}}", a=a, b=b)) == "{{parents.b.output}} {{{{x | {{y}}}}"


def test_only_the_text_that_the_record_counts() -> None:
    """What a stalled worker wrote beyond the end is no part of the answer, and makes no parsed one."""
    memory = InMemoryAdapters()
    a = parent(memory, "a", "12345", parsed=12345, length=3)

    assert filled(memory, asks("{{parents.a.output}}", a=a)) == "123"
    assert "has no parsed answer" in refusal(memory, asks("{{parents.a.parsed}}", a=a))


def test_an_input_is_filled_and_rendered() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", "code")
    kind = replace(
        PLAIN, input_schema={"type": "object", "properties": {"code": {"type": "string"}}}, render=lambda i, o: f"{o['how']}: {i['code']}"
    )

    body = fill_parent_results(memory.jobs, memory.results, asks({"code": "<{{parents.a.output}}>"}, options={"how": "look"}, a=a), kind)

    assert (body.prompt, body.input) == ("look: <code>", {"code": "<code>"})


def test_an_input_that_no_longer_fits_is_refused() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", "far too long")
    kind = replace(PLAIN, input_schema={"type": "object", "properties": {"code": {"type": "string", "maxLength": 30}}})

    assert "input.code" in refusal(memory, asks({"code": "{{parents.a.output}}" * 3}, a=a), kind)


def test_a_type_that_stumbles_over_it_refuses() -> None:
    """The worker lives on."""
    memory = InMemoryAdapters()
    a = parent(memory, "a", "x")
    kind = replace(PLAIN, render=lambda content, options: options["missing"])

    assert "no prompt could be made" in refusal(memory, asks("{{parents.a.output}}", a=a), kind)


def test_a_path_that_is_not_there_is_named() -> None:
    memory = InMemoryAdapters()
    a, b = parent(memory, "a", '{"risk": "low"}', {"risk": "low"}), parent(memory, "b", "prose")

    assert refusal(memory, asks("{{parents.a.parsed.risks.0}}", a=a)) == (
        "The template asks for {{parents.a.parsed.risks.0}}, which is not there: the answer of job_a has no such part."
    )
    assert "job_b (completed) has no parsed answer" in refusal(memory, asks("{{parents.b.parsed.risk}}", a=a, b=b))


def test_too_long_in_the_end_is_refused() -> None:
    memory = InMemoryAdapters()
    a = parent(memory, "a", "é" * (MAX_PROMPT_BYTES // 4))

    assert len(filled(memory, asks("{{parents.a.output}}" * 2, a=a)).encode()) == MAX_PROMPT_BYTES
    assert "longer than 1 MB" in refusal(memory, asks("{{parents.a.output}}" * 2 + ".", a=a))
    assert "longer than 1 MB" in refusal(memory, asks("{{parents.a.output}}" * 20_000, a=a))  # 5 GB, of which none is made


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.COMPLETED])
def test_a_parent_that_is_not_completed_is_an_obstacle_unless_it_is_to_run_anyway(status: Status) -> None:
    """As for one that was started again by hand; anyway, there is what text there is."""
    memory = InMemoryAdapters()
    a = parent(memory, "a", "half an ans", status=status)

    with pytest.raises(DependencyFailed, match=f"It depends on job_a, which is {status.value}"):
        filled(memory, asks("{{parents.a.output}}", a=a))
    assert filled(memory, asks("{{parents.a.status}}: {{parents.a.output}}", anyway=True, a=a)) == f"{status.value}: half an ans"


def test_a_parent_that_is_gone_said_nothing() -> None:
    memory = InMemoryAdapters()
    gone = parent(memory, "a", "x", ttl=0, finished_at=5)

    for name in (gone, "job_never"):
        with pytest.raises(DependencyFailed, match="which is deleted"):
            filled(memory, asks("x", a=name))
        assert filled(memory, asks("{{parents.a.status}} {{parents.a.output}}.", anyway=True, a=name)) == "deleted ."
        assert "(deleted) has no parsed answer" in refusal(memory, asks("{{parents.a.parsed}}", anyway=True, a=name))


def test_answers_that_nobody_names_are_not_read() -> None:
    """A hundred parents may have said a lot."""
    memory = InMemoryAdapters()
    parents = {f"p{number}": parent(memory, str(number), "x") for number in range(100)}
    reads: list[str] = []
    get = memory.results.get
    memory.results.get = lambda job_id, attempt: (reads.append(job_id), get(job_id, attempt))[1]  # type: ignore[func-returns-value, method-assign]

    assert filled(memory, asks("{{parents.p7.output}} {{parents.p8.status}}", **parents)) == "x completed"
    assert reads == ["job_7"]


def test_an_attempt_that_goes_on_does_so_without_its_parents() -> None:
    memory = InMemoryAdapters()
    body = asks("{{parents.a.output}}", a="job_gone")

    assert fill_parent_results_if_available(memory.jobs, memory.results, body, PLAIN) == body


# ---- in a worker's hands


def finished(world: World, *jobs: Job) -> None:
    world.deliver()
    release_dependents(world.container, [(one.id, None, world.job(one)) for one in jobs])


def test_without_parents_braces_mean_nothing() -> None:
    world = World()
    world.submit("{{parents.a.output}} {{x}} {{{{")

    world.deliver()

    assert world.provider.requests[0].prompt == "{{parents.a.output}} {{x}} {{{{"


def test_what_cannot_be_filled_fails_without_a_call() -> None:
    """For good: another attempt would find the same."""
    world = World(Script(deltas=("prose",)))
    first = world.submit("a")
    child = world.submit("{{parents.a.parsed.x}}", depends_on={"a": first.id})
    finished(world, first)

    world.deliver()

    failed = world.job(child)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.retryable) == (Status.FAILED, "request_invalid", False)
    assert len(world.provider.requests) == 1
    assert [(row.attempt, row.cost) for row in world.container.results.attempts(child.id)] == [(1, None)]


def test_retried_before_its_parents_are_completed_it_fails_without_a_call() -> None:
    world = World(Script(deltas=("x",)))
    first = world.submit("a")
    child = world.submit("{{parents.a.output}}", depends_on={"a": first.id})
    memory = world.container
    memory.jobs.heads[first.id] = replace(world.job(first), status=Status.FAILED, due_at=None, version=2, finished_at=world.clock.now())
    release_dependents(world.container, [(first.id, None, world.job(first))])

    retry_job(world.container, world.job(child))
    world.deliver()

    failed = world.job(child)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (Status.FAILED, "dependency_failed")
    assert [request.prompt for request in world.provider.requests] == []


def test_every_attempt_is_asked_the_same() -> None:
    """The second after a killed worker too, whose tokens are counted by what it was asked."""
    long = "word " * 2_000
    world = World(Script(deltas=(long,)), Script(every=5.0), Script())
    first = world.submit("a")
    child = world.submit("{{parents.a.output}}", depends_on={"a": first.id})
    finished(world, first)

    kill(world, 3.0)
    world.sweep(after=130)
    world.deliver()

    assert world.job(child).status is Status.COMPLETED
    assert [request.prompt for request in world.provider.requests[1:]] == [long, long]
    lost = world.container.results.get(child.id, 1)
    assert lost is not None
    assert lost.usage is not None
    assert lost.usage.input > 1_500


def test_a_durable_answer_goes_on_when_its_parent_is_gone() -> None:
    world = World(Script(deltas=("x",)), Script(deltas=("a", "b", "c"), every=4.0))
    first = world.submit("a")
    child = world.submit("{{parents.a.output}}", depends_on={"a": first.id}, config={"durable": True})
    finished(world, first)
    kill(world, 6.0)
    delete_job(world.container, world.job(first))

    world.sweep(after=60)
    world.deliver()

    assert (world.job(child).status, world.job(child).attempt) == (Status.COMPLETED, 1)
    assert world.container.results.get(child.id, 1).text == "abc"  # type: ignore[union-attr]


def test_failures_of_dependencies_are_failures_of_attempts() -> None:
    """So the ledger has a row for them like for all others."""
    assert issubclass(DependencyFailed, AttemptFailed)
    assert not DependencyFailed.retryable
