"""The prompt of a job: as its type makes it of what was given, and with what its parents said once they have ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from chalicelib.domain.errors import TemplateProblem
from chalicelib.domain.failures import AttemptFailed, DependencyFailed, RequestRefused
from chalicelib.domain.jobs.dependencies import ROOT, RUN_ANYWAY, first_failed, status_of
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.jobs.transitions import parent_failed
from chalicelib.domain.template import fill, fill_within, names_within
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.validation.schema import problems
from chalicelib.ports import Jobs, Results

MAX_PROMPT_BYTES = 1_000_000


def render_prompt(kind: JobType, content: Any, options: dict[str, Any]) -> str:
    """What the provider is asked, of a prompt or an input."""
    return repair_surrogates(kind.render(content, options) if kind.render else str(content))


def fill_parent_results(jobs: Jobs, results: Results, body: JobSpec, kind: JobType) -> JobSpec:
    """The body of a job that depends on others, its template filled with what they said. Nothing is written: a later attempt fills it anew,
    and finds the same, because what is completed stays as it is.

    Raises:
        DependencyFailed: a parent is not completed, and the job was to run only then: it was started by hand.
        RequestRefused: the template asks for what there is not, or it is too much.
        Unavailable: a store did not answer.
    """
    heads = {job.id: job for job in jobs.get_many(list(body.depends_on.values()), consistent=True) if not job.is_deleted}
    if body.on_parent_failure != RUN_ANYWAY:
        _expect_completed(body.depends_on.values(), heads)
    if body.template is None:
        return body
    content = body.template["content"]
    values = {**body.template.get("values", {}), ROOT: _said(results, body.depends_on, heads, names_within(content))}
    return _filled(body, kind, content, values)


def fill_parent_results_if_available(jobs: Jobs, results: Results, body: JobSpec, kind: JobType) -> JobSpec:
    """The same for an attempt that has been begun: if the parents are gone by now, it goes on without them."""
    try:
        return fill_parent_results(jobs, results, body, kind)
    except AttemptFailed:
        return body


def _expect_completed(parents: Iterable[str], heads: Mapping[str, Job]) -> None:
    """One that was started again, and has not ended yet, has not completed either."""
    for parent in parents:
        head = heads.get(parent)
        if first_failed([parent], heads) or (head is not None and not head.status.is_terminal):
            raise DependencyFailed(parent_failed(parent, status_of(head)))


def _said(results: Results, parents: Mapping[str, str], heads: Mapping[str, Job], names: Iterable[str]) -> dict[str, Any]:
    """What a template can name of each parent. Only those results are read that it does name."""
    asked = {tuple(name.split(".")[1:3]) for name in names if name.startswith(f"{ROOT}.")}
    said: dict[str, Any] = {}
    for alias, parent in parents.items():
        head = heads.get(parent)
        said[alias] = {"status": status_of(head), "job_id": parent}
        if {(alias, "output"), (alias, "parsed")} & asked:
            said[alias] |= _answer(results, head)
    return said


def _answer(results: Results, head: Job | None) -> dict[str, Any]:
    """The text of a parent, as far as its record says that it goes; of one that has none, nothing."""
    kept = results.get(head.id, head.attempt) if head is not None and head.attempt else None
    if head is None or kept is None:
        return {"output": ""}
    length = head.length or 0
    whole_answer = kept.parsed is not None and len(kept.text) <= length
    return {"output": kept.text[:length], **({"parsed": kept.parsed} if whole_answer else {})}


def _filled(body: JobSpec, kind: JobType, content: Any, values: Mapping[str, Any]) -> JobSpec:
    for name in names_within(content):
        try:
            fill(f"{{{{{name}}}}}", values)
        except TemplateProblem as missing:
            raise RequestRefused(f"The template asks for {{{{{name[:80]}}}}}, which is not there: {_why(name, values)}.") from missing
    try:
        filled = fill_within(content, values)
    except TemplateProblem as long:  # nothing is missing
        raise RequestRefused("With what its parents said, the prompt is longer than 1 MB.") from long
    try:
        wrong = problems(kind.input_schema, filled, "input") if body.input is not None and kind.input_schema else ()
        prompt = render_prompt(kind, filled, body.options) if not wrong else ""
    except Exception as broken:
        raise RequestRefused("With what its parents said, no prompt could be made of the input.") from broken
    if wrong:
        raise RequestRefused(f"With what its parents said, {wrong[0].path} {wrong[0].message}.")
    if len(prompt.encode()) > MAX_PROMPT_BYTES:
        raise RequestRefused("With what its parents said, the prompt is longer than 1 MB.")
    return replace(body, prompt=prompt, input=filled if body.input is not None else None)


def _why(name: str, values: Mapping[str, Any]) -> str:
    alias, _, part = name.removeprefix(f"{ROOT}.").partition(".")
    parent = values[ROOT].get(alias)
    if parent is None:
        return "there is no such value"
    if part.startswith("parsed") and "parsed" not in parent:
        return f"{parent['job_id']} ({parent['status']}) has no parsed answer"
    return f"the answer of {parent['job_id']} has no such part"
