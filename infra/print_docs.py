"""Print the pages of `docs/` that are generated from the code: errors, settings, routes, job types.

python -m infra.print_docs           write the pages
python -m infra.print_docs --check   exit with 1 and name the pages that are out of date
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, replace
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from chalicelib.adapters.openai.error_signs import SIGNS, Sign
from chalicelib.domain import errors, failures
from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.execution.retry_policy import RetryPolicy
from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES, give_up, reclaim
from chalicelib.entrypoints.http.errors import STATUS, status_of
from chalicelib.entrypoints.http.middleware import CODES
from chalicelib.entrypoints.http.openapi import document as openapi_document
from chalicelib.entrypoints.http.routes import (
    about,
    batches,
    bulk,
    failed_jobs,
    job_reads,
    jobs,
    limits,
    operations,
    pauses,
    streams,
    uploads,
    webhooks,
)
from chalicelib.entrypoints.http.server import ROUTES
from chalicelib.settings import Settings
from infra.chalice_config import ROOT, SETTINGS
from infra.gateway_responses import GATEWAY_RESPONSES
from infra.print_job_types import page as render_job_types

DOCS = ROOT / "docs"
NOTE = "<!-- Printed from the code by `python -m infra.print_docs`; change the code, not this page. -->"
BLUEPRINTS = (
    about,
    batches,
    bulk,
    failed_jobs,
    jobs,
    job_reads,
    limits,
    openapi_document,
    operations,
    pauses,
    streams,
    uploads,
    webhooks,
)  # their import registers the routes
_BLANK_JOB = Job(
    id="",
    tenant="",
    user="",
    key_id="",
    type="",
    lane="",
    model="",
    status=Status.QUEUED,
    created_at=0,
    queued_at=0,
    expires_at=1,
    due_at=1,
)
METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")

# The settings that the docstring of `Settings` does not explain.
MEANINGS = {
    "log_level": "The minimum level that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`.",
    "requests_per_minute": "Maximum requests per key and clock minute. Event streams count, but are never rejected.",
    "max_long_polls": "Maximum requests held at the same time (`?wait=`, `async: false`, event streams); more are answered at once.",
    "frames_per_second": "Token frames per second to one WebSocket. In the first three seconds it is ten.",
    "omit_parameters": (
        "Parameters that Headrace adds to each request and that are never sent to this provider, separated by commas: any of "
        "`stream`, `stream_options`, `store`, `prompt_cache_key`, `max_output_tokens`. See [providers.md](providers.md#what-is-sent)."
    ),
    "provider_idle_timeout": (
        "Maximum seconds of silence while OpenAI writes an answer. Before its first token, while it reasons and between items "
        "`config.timeout` applies."
    ),
}


def pages() -> dict[Path, str]:
    """Every printed page with its content."""
    return {
        DOCS / "errors.md": errors_page(),
        DOCS / "settings.md": settings_page(),
        DOCS / "routes.md": routes_page(),
        DOCS / "job-types.md": job_types_page(),
    }


def errors_page() -> str:
    public, internal = _http_errors()
    return f"""# Errors

{NOTE}

{_request_error_section(public)}

{_job_error_section()}

## Internal errors

These never reach a client: {", ".join(f"`{kind.__name__}`" for kind in internal)}.
"""


def _request_error_section(public: list[type[HeadraceError]]) -> str:
    return f"""## Errors of requests

Every error has one shape:
`{{"success": false, "error": {{"code", "message", "request_id", "details": [{{"path", "message"}}]}}}}`.
The code is for programs, the message for people. Quote the `request_id` in reports: the log has it
too. `details` names every invalid field at once.

{_table(("status", "code", "meaning"), ((str(status_of(kind())), f"`{kind.code}`", _docstring(kind)) for kind in public))}

Any other failure is 500 `internal_error`: a bug in Headrace, logged with its request id.

Chalice and API Gateway answer some requests before a handler sees them. They use the same shape,
with these codes:

{_table(("status", "code", "from"), _platform_errors())}"""


def _job_error_section() -> str:
    policy = RetryPolicy(max_attempts=3)
    return f"""## Errors of jobs

The `error` of a job, in its record, its result and the last frame of its streams:
`{{"code", "class", "retryable", "message", "suggestion", "attempt", "provider_status", "provider_request_id"}}`.

{_table(("code", "class", "retried", "message", "what to do", "once it has failed"), _job_errors())}

"retried: yes" means: the job gets a new attempt while attempts are left (`config.max_attempts`,
which includes the first; default 3) and the next one would start within `config.retry_for` (default
24 h). The delay before it is random between 0 and {policy.base:g} s x 2^n, at most {policy.cap:g} s, or follows the retry
schedule of the job type. It is never shorter than the wait that OpenAI asks for. Text and cost of a
failed attempt are kept in `GET /jobs/{{id}}/attempts`.

"it waits" means: no attempt is used. The job is `held` with a reason
([api.md](api.md#held-jobs)) and this error, and continues by itself; if the cause is not over within
`config.retry_for`, it fails with it. Without a key, a job type that can answer without OpenAI does
so instead; its result has `"fallback": true`.

"what to do" is the `suggestion` while the job goes on, "once it has failed" the one in the end. The
message has the provider's own words behind ours, without keys, tags and invisible characters.

{_signs_section()}"""


def _signs_section() -> str:
    rows = ((f"`{sign.kind.code}`", sign.meaning, *_signs(sign), sign.suggestion) for sign in SIGNS)
    return f"""## By which signs an error of OpenAI is known

The first line that fits decides. A line fits by one of its codes (also of types, in any spelling:
`RateLimitReached` counts as `rate_limit_reached`; `*` stands for any end), or by one of its words
in the message (regular expressions, regardless of capitals), or, without both, by its status alone.
The status has to be one of the line's, if it has some; inside a stream that has begun it is the
number in the error, if there is one, and without one only codes count, and words of lines for every
status. An error with the status 200 is read in the same way. Bodies are read in the shapes of
OpenAI, nested or flat, FastAPI (`detail`), problem details, lists, plain text and pages of HTML,
and without what a gateway (OpenRouter, LiteLLM) puts around the words of the server behind it.

{_table(("code", "meaning", "status", "codes", "words", "what helps, if not as above"), rows)}

How long to wait is read from `retry-after-ms`, `Retry-After` (seconds, a duration, a date), the
words of the message ("try again in 6h3m12.5s", "retry after 20 minutes", "in 1 day", "in 00:01:30",
"resets at 2026-12-01 10:00 UTC"), fields such as `retry_after`, `retryDelay` and
`resets_in_seconds`, and, if nothing else says it, `x-ratelimit-reset-*` and `RateLimit`. It is kept to
its full length, up to a week, the longest `config.retry_for`.

An address that redirects (301, 302, 303, or to another host that then refuses the request) is
`openai_address_invalid`, too: the request would lose its content or its key on the way. The message
names both addresses."""


def _signs(sign: Sign) -> tuple[str, str, str]:
    runs = [list(run) for _, run in groupby(enumerate(sorted(sign.statuses)), key=lambda one: one[1] - one[0])]
    ranges = ", ".join(f"{run[0][1]} to {run[-1][1]}" if len(run) > 2 else ", ".join(str(status) for _, status in run) for run in runs)
    codes = [*sorted(sign.codes), *(f"{prefix}*" for prefix in sign.prefixes)]
    words = [f"`{'^' if sign.begins else ''}{one}`" for one in sign.words]
    return ranges, ", ".join(f"`{code}`" for code in codes), "; ".join(words)


def settings_page() -> str:
    rows = ((f"`HEADRACE_{field.name.upper()}`", _default(field), _meaning(field.name)) for field in fields(Settings))
    stages = sorted({name for settings in SETTINGS.values() for name in settings})
    values = (
        (f"`{name}`", *(f"`{SETTINGS[stage].get(name, '')}`" if SETTINGS[stage].get(name) else "" for stage in SETTINGS)) for name in stages
    )
    return f"""# Settings

{NOTE}

Every setting is an environment variable. `infra/chalice_config.py` writes them into
`.chalice/config.json`, and a deployment applies them. A function reads them once, on first use. An
invalid value stops the function with a message that names it.

{_table(("variable", "default", "meaning"), rows)}

By stage:

{_table(("variable", *SETTINGS), values)}

The OpenAI key is not a setting: it is stored in Secrets Manager (`make openai-key`). For the
variables of the laptop cloud and the command line see [operations.md](operations.md).
"""


def routes_page() -> str:
    routes = sorted(ROUTES, key=lambda route: (route.path, METHODS.index(route.method)))  # independent of the import order
    rows = (
        (f"`{route.method} {route.path}`", route.role.label if route.role else "public", route.effect.value, route.summary)
        for route in routes
    )
    return f"""# Routes

{NOTE}

Each route with the minimum role that may call it. One with an effect on the stage also needs a key
of all tenants. [api.md](api.md) describes requests and responses.

{_table(("route", "role", "effect", "description"), rows)}
"""


def job_types_page() -> str:
    return render_job_types(NOTE, _table)


def stale() -> list[Path]:
    """The pages that are out of date."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text() != text]


def write() -> list[Path]:
    """Write the pages that are out of date and return their paths."""
    changed = stale()
    for path in changed:
        path.write_text(pages()[path])
    return changed


def _http_errors() -> tuple[list[type[HeadraceError]], list[type[HeadraceError]]]:
    """The error classes with an HTTP status, in its order, and the internal ones."""
    kinds = [kind for kind in _classes(errors, HeadraceError) if kind is not HeadraceError]
    public = [kind for kind in kinds if issubclass(kind, tuple(known for known, _ in STATUS))]
    return sorted(public, key=lambda kind: status_of(kind())), [kind for kind in kinds if kind not in public]


def _classes(module: ModuleType, root: type[HeadraceError]) -> list[Any]:
    """The error classes that a module defines, in file order."""
    return [
        kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, root) and kind.__module__ == module.__name__
    ]


def _attempt_row(kind: type[AttemptFailed]) -> tuple[str, ...]:
    retried = "it waits" if kind.waits else "yes" if kind.retryable else "no"
    return f"`{kind.code}`", kind.error_class, retried, _docstring(kind), kind.suggestion, kind.final_suggestion


def _job_errors() -> list[tuple[str, ...]]:
    """All errors of jobs: those of attempts and the two that no attempt raises.

    `ReattachRefused` is left out, because the attempt handles it itself: it fetches the response.
    """
    kinds = [kind for kind in _classes(failures, AttemptFailed) if kind is not failures.ReattachRefused]
    return [*(_attempt_row(kind) for kind in kinds), _worker_lost_row(), _held_too_long_row()]


def _worker_lost_row() -> tuple[str, ...]:
    """`worker_lost`: the sweeper gives it to a job that keeps crashing its workers."""
    crashing = replace(_BLANK_JOB, status=Status.PROCESSING, owner="lease#1", run_alone=True, isolated_crashes=MAX_ISOLATED_CRASHES)
    return _job_row(reclaim(crashing, "lease", 0, None, 1))


def _held_too_long_row() -> tuple[str, ...]:
    """`held_too_long`: the error of a job that was held until no time was left for an attempt."""
    return _job_row(give_up(replace(_BLANK_JOB, status=Status.HELD, started_at=1, retry_until=1), 1))


def _job_row(failed: Job | None) -> tuple[str, ...]:
    if failed is None or failed.error is None:
        raise TypeError("this job must fail")
    error = failed.error
    return f"`{error.code}`", error.error_class, "yes" if error.retryable else "no", error.message, error.suggestion, ""


def _platform_errors() -> Iterator[tuple[str, ...]]:
    for status, (code, _) in CODES.items():
        yield str(status), f"`{code}`", "Chalice"
    for status, code in sorted({(answer.status or 0, answer.code) for answer in GATEWAY_RESPONSES.values()}):
        yield str(status) if status else "4xx, 5xx", f"`{code}`", "API Gateway"


def _docstring(kind: type[Any]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").replace("\n", " ")


def _meaning(name: str) -> str:
    """The meaning of a setting, from the docstring of `Settings` or from `MEANINGS`."""
    match = re.search(rf"^{name}: (.+)$", inspect.cleandoc(Settings.__doc__ or ""), re.MULTILINE)
    text = match[1] if match else MEANINGS[name]
    return text[0].upper() + text[1:]


def _default(field: Any) -> str:
    value = None if field.default is MISSING else field.default
    return "" if value in (None, ()) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if drifted := stale():
            sys.exit("Out of date: " + ", ".join(str(path.relative_to(ROOT)) for path in drifted) + ". Run: python -m infra.print_docs")
    else:
        for path in write():
            print(path.relative_to(ROOT))
