"""The pages of `docs/` that the code can say itself: errors, settings, routes, job types.

python -m infra.print_docs           write them
python -m infra.print_docs --check   exit with 1 and name the pages that say something else than the code
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from chalicelib.domain import errors, failures
from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.execution.retry_policy import RetryPolicy
from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES, give_up, reclaim
from chalicelib.entrypoints.http.errors import STATUS, status_of
from chalicelib.entrypoints.http.middleware import CODES
from chalicelib.entrypoints.http.openapi import document as openapi_document
from chalicelib.entrypoints.http.routes import about, batches, bulk, failed_jobs, job_reads, jobs, operations, streams, uploads, webhooks
from chalicelib.entrypoints.http.server import ROUTES
from chalicelib.settings import Settings
from infra.chalice_config import ROOT, SETTINGS
from infra.gateway_responses import ANSWERS
from infra.print_job_types import page as page_on_job_types

DOCS = ROOT / "docs"
NOTE = "<!-- Printed from the code by `python -m infra.print_docs`; change the code, not this page. -->"
BLUEPRINTS = (
    about,
    batches,
    bulk,
    failed_jobs,
    jobs,
    job_reads,
    openapi_document,
    operations,
    streams,
    uploads,
    webhooks,
)  # importing them registers their routes
_BLANK = Job(
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

# What `Settings` does not explain in its own docstring.
MEANINGS = {
    "log_level": "The least level that is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`.",
    "requests_per_minute": "How many requests a key may make in a minute of the clock. Event streams count, but are never refused.",
    "max_long_polls": "How many requests may be held at once (`?wait=`, `async: false`, event streams); beyond it they are answered now.",
    "frames_per_second": "Token frames a second to one WebSocket, after the first three seconds of ten.",
    "provider_idle_timeout": "The longest silence in an answer of OpenAI's, except while a model reasons.",
}


def pages() -> dict[Path, str]:
    """Every printed page and what it must hold."""
    return {
        DOCS / "errors.md": errors_page(),
        DOCS / "settings.md": settings_page(),
        DOCS / "routes.md": routes_page(),
        DOCS / "job-types.md": job_types_page(),
    }


def errors_page() -> str:
    policy = RetryPolicy(max_attempts=3)
    told, inner = _http_errors()
    return f"""# Errors

{NOTE}

## What a request may be answered

Every error has one shape: `{{"success": false, "error": {{"code", "message", "request_id", "details": [{{"path", "message"}}]}}}}`.
The code is for programs, the message for people. Quote the `request_id`: it is in the log. `details` names every wrong field at once.

{_table(("status", "code", "means"), ((str(status_of(kind())), f"`{kind.code}`", _says(kind)) for kind in told))}

Anything else is 500 `internal_error`: a fault of ours, logged with its request id.

Chalice and API Gateway answer some requests before a handler sees them. They use the same shape, with these codes:

{_table(("status", "code", "from"), _answers_of_others())}

## Why a job failed

The `error` of a job, in its record, its result and the last frame of its streams:
`{{"code", "class", "retryable", "message", "suggestion", "attempt", "provider_status", "provider_request_id"}}`.

{_table(("code", "class", "retried", "message", "what to do"), _reasons())}

"Retried" means: as a new attempt, while attempts are left (`config.max_attempts`, the first included; default 3) and the next would begin
before `config.retry_for` is over (default 24 h). The pause before it is random between 0 and {policy.base:g} s x 2^n, at most
{policy.cap:g} s, or what the job type's own schedule says, and never shorter than OpenAI's `Retry-After`. A failed attempt keeps its text
and its cost in `GET /jobs/{{id}}/attempts`.

"It waits": no attempt is used up. The job is `held` with the code as its reason, looks again every few minutes, and goes on by itself. A
type that can answer without OpenAI does so instead, and its result says `"fallback": true`.

## What one part of the engine tells another

These never reach a caller: {", ".join(f"`{kind.__name__}`" for kind in inner)}.
"""


def settings_page() -> str:
    rows = ((f"`HEADRACE_{field.name.upper()}`", _default(field), _meaning(field.name)) for field in fields(Settings))
    stages = sorted({name for settings in SETTINGS.values() for name in settings})
    values = (
        (f"`{name}`", *(f"`{SETTINGS[stage].get(name, '')}`" if SETTINGS[stage].get(name) else "" for stage in SETTINGS)) for name in stages
    )
    return f"""# Settings

{NOTE}

The functions read these once, when they are first needed. A value that cannot be used stops the function with a message that names it.
Every setting is an environment variable; `infra/chalice_config.py` writes them into `.chalice/config.json`, and a deployment applies them.

{_table(("variable", "default", "meaning"), rows)}

Different by stage:

{_table(("variable", *SETTINGS), values)}

The OpenAI key is no setting: it is kept in Secrets Manager (`make openai-key`). Variables that only the laptop cloud and the command line
read are in [operations.md](operations.md).
"""


def routes_page() -> str:
    routes = sorted(ROUTES, key=lambda route: (route.path, METHODS.index(route.method)))  # whatever was imported first
    rows = ((f"`{route.method} {route.path}`", route.role.label if route.role else "public", route.summary) for route in routes)
    return f"""# Routes

{NOTE}

Each with the least role that may call it. Shapes and rules are in [api.md](api.md).

{_table(("route", "role", "what it does"), rows)}
"""


def job_types_page() -> str:
    return page_on_job_types(NOTE, _table)


def stale() -> list[Path]:
    """The pages that do not say what the code says."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text() != text]


def write() -> list[Path]:
    """Bring the pages up to date; answers those that changed."""
    changed = stale()
    for path in changed:
        path.write_text(pages()[path])
    return changed


def _http_errors() -> tuple[list[type[HeadraceError]], list[type[HeadraceError]]]:
    """Those that have a status, in its order, and the others."""
    kinds = [kind for kind in _classes(errors, HeadraceError) if kind is not HeadraceError]
    told = [kind for kind in kinds if issubclass(kind, tuple(known for known, _ in STATUS))]
    return sorted(told, key=lambda kind: status_of(kind())), [kind for kind in kinds if kind not in told]


def _classes(module: ModuleType, root: type[HeadraceError]) -> list[Any]:
    """The error classes that a module defines, in the order of the file."""
    return [
        kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, root) and kind.__module__ == module.__name__
    ]


def _attempt_row(kind: type[AttemptFailed]) -> tuple[str, ...]:
    retried = "it waits" if kind is failures.NotConfigured else "yes" if kind.retryable else "no"
    return f"`{kind.code}`", kind.error_class, retried, _says(kind), kind.suggestion


def _reasons() -> list[tuple[str, ...]]:
    """What an attempt may fail of, and what no attempt raises. A refused resumption is met within the attempt, which fetches instead."""
    kinds = [kind for kind in _classes(failures, AttemptFailed) if kind is not failures.ReattachRefused]
    return [*(_attempt_row(kind) for kind in kinds), _lost_row(), _held_row()]


def _lost_row() -> tuple[str, ...]:
    """An error that no attempt raises: the sweep gives it to a job that goes on killing its workers."""
    dying = replace(_BLANK, status=Status.PROCESSING, owner="lease#1", run_alone=True, isolated_crashes=MAX_ISOLATED_CRASHES)
    return _job_row(reclaim(dying, "lease", 0, None, 1))


def _held_row() -> tuple[str, ...]:
    """The other one: of a job that was held until its time was over."""
    return _job_row(give_up(replace(_BLANK, status=Status.HELD, started_at=1, retry_until=1), 1))


def _job_row(failed: Job | None) -> tuple[str, ...]:
    if failed is None or failed.error is None:
        raise TypeError("such a job must fail")
    error = failed.error
    return f"`{error.code}`", error.error_class, "yes" if error.retryable else "no", error.message, error.suggestion


def _answers_of_others() -> Iterator[tuple[str, ...]]:
    for status, (code, _) in CODES.items():
        yield str(status), f"`{code}`", "Chalice"
    for status, code in sorted({(answer.status or 0, answer.code) for answer in ANSWERS.values()}):
        yield str(status) if status else "4xx, 5xx", f"`{code}`", "API Gateway"


def _says(kind: type[Any]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").replace("\n", " ")


def _meaning(name: str) -> str:
    """What the docstring of `Settings` says, else what this page adds."""
    said = re.search(rf"^{name}: (.+)$", inspect.cleandoc(Settings.__doc__ or ""), re.MULTILINE)
    text = said[1] if said else MEANINGS[name]
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
            sys.exit(
                "Not what the code says: "
                + ", ".join(str(path.relative_to(ROOT)) for path in drifted)
                + ". Run: python -m infra.print_docs"
            )
    else:
        for path in write():
            print(path.relative_to(ROOT))
