"""Render the prompt of a job, and fill the results of its parents into its template."""

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
    """Return the prompt for a prompt or an input, as the type renders it."""
    return repair_surrogates(kind.render(content, options) if kind.render else str(content))


def fill_parent_results(jobs: Jobs, results: Results, spec: JobSpec, kind: JobType) -> JobSpec:
    """Return the job spec with its template filled in from the results of its parents.

    Nothing is written. A later attempt gets the same prompt, because completed jobs do not change.

    Raises:
        DependencyFailed: a parent is not completed, and the job needs that; it was started by a
            manual retry.
        RequestRefused: the template uses a value that does not exist, or the prompt gets too long.
        Unavailable: a store did not answer.
    """
    parents = {job.id: job for job in jobs.get_many(list(spec.depends_on.values()), consistent=True) if not job.is_deleted}
    if spec.on_parent_failure != RUN_ANYWAY:
        _require_completed(spec.depends_on.values(), parents)
    if spec.template is None:
        return spec
    content = spec.template["content"]
    values = {**spec.template.get("values", {}), ROOT: _parent_values(results, spec.depends_on, parents, names_within(content))}
    return _fill_template(spec, kind, content, values)


def fill_parent_results_if_available(jobs: Jobs, results: Results, spec: JobSpec, kind: JobType) -> JobSpec:
    """Like `fill_parent_results`, but return the spec unchanged if that fails: for an attempt that
    has started, whose parents may have been deleted since.
    """
    try:
        return fill_parent_results(jobs, results, spec, kind)
    except AttemptFailed:
        return spec


def _require_completed(ids: Iterable[str], parents: Mapping[str, Job]) -> None:
    """Raise `DependencyFailed` if a parent failed, or was restarted and has not ended."""
    for parent_id in ids:
        parent = parents.get(parent_id)
        if first_failed([parent_id], parents) or (parent is not None and not parent.status.is_terminal):
            raise DependencyFailed(parent_failed(parent_id, status_of(parent)))


def _parent_values(results: Results, ids: Mapping[str, str], parents: Mapping[str, Job], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of each parent by alias. Only results that the template uses are read."""
    used = {tuple(name.split(".")[1:3]) for name in names if name.startswith(f"{ROOT}.")}
    values: dict[str, Any] = {}
    for alias, parent_id in ids.items():
        parent = parents.get(parent_id)
        values[alias] = {"status": status_of(parent), "job_id": parent_id}
        if {(alias, "output"), (alias, "parsed")} & used:
            values[alias] |= _output_of(results, parent)
    return values


def _output_of(results: Results, parent: Job | None) -> dict[str, Any]:
    """Return a parent's text up to the length in its record, and its parsed output if complete."""
    result = results.get(parent.id, parent.attempt) if parent is not None and parent.attempt else None
    if parent is None or result is None:
        return {"output": ""}
    length = parent.length or 0
    is_complete = result.parsed is not None and len(result.text) <= length
    return {"output": result.text[:length], **({"parsed": result.parsed} if is_complete else {})}


def _fill_template(spec: JobSpec, kind: JobType, content: Any, values: Mapping[str, Any]) -> JobSpec:
    for name in names_within(content):
        try:
            fill(f"{{{{{name}}}}}", values)
        except TemplateProblem as missing:
            raise RequestRefused(f"The template asks for {{{{{name[:80]}}}}}, which is not there: {_reason(name, values)}.") from missing
    try:
        filled = fill_within(content, values)
    except TemplateProblem as too_long:  # every name has a value, so only the length can be wrong
        raise RequestRefused("With the output of its parents, the prompt is longer than 1 MB.") from too_long
    try:
        details = problems(kind.input_schema, filled, "input") if spec.input is not None and kind.input_schema else ()
        prompt = render_prompt(kind, filled, spec.options) if not details else ""
    except Exception as exc:
        raise RequestRefused("With the output of its parents, no prompt could be made from the input.") from exc
    if details:
        raise RequestRefused(f"With the output of its parents, {details[0].path} {details[0].message}.")
    if len(prompt.encode()) > MAX_PROMPT_BYTES:
        raise RequestRefused("With the output of its parents, the prompt is longer than 1 MB.")
    return replace(spec, prompt=prompt, input=filled if spec.input is not None else None)


def _reason(name: str, values: Mapping[str, Any]) -> str:
    alias, _, part = name.removeprefix(f"{ROOT}.").partition(".")
    parent = values[ROOT].get(alias)
    if parent is None:
        return "there is no such value"
    if part.startswith("parsed") and "parsed" not in parent:
        return f"{parent['job_id']} ({parent['status']}) has no parsed answer"
    return f"the answer of {parent['job_id']} has no such part"
