"""`headrace limits`: the limits of tenants, of models and of job types."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli import output
from cli.errors import UsageError
from cli.listing import Listing
from cli.session import Json, session
from cli.usage import text

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, no_args_is_help=False)

NONE = "none"  # the value of an option that removes a limit
Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.", show_default=False, callback=text)]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model.", show_default=False, callback=text)]
COLUMNS = ("tenant", "weight", "fair by", "running", "each user", "queued", "shards")
MODEL_COLUMNS = ("model", "requests", "tokens", "source", "blocked until", "waiting", "others")
TYPE_COLUMNS = ("job type", "running", "starts", "waiting", "others")
LANES = ("urgent", "high", "normal", "low")


@app.callback()
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the limits of your tenant, of models and of job types, how much of them is used, and what waits for them.

    Models: the requests and tokens of the last minute, of how many. With a key of all tenants, also the limits of the others.

    \b
    headrace limits
    headrace limits set-model gpt-4o-mini --requests 500 --tokens 200000
    headrace limits set acme --concurrency 50 --user-concurrency 5 --queued low=10000
    headrace limits set acme --concurrency none
    headrace limits set acme --fair-by user
    """
    if ctx.invoked_subcommand is not None:
        return
    answer = session(ctx).api.get("/limits")
    if as_json:
        output.print_json(answer)
        return
    own = answer["limits"]
    _print([own, *(row for row in answer.get("tenants") or () if row["tenant"] != own["tenant"])])
    _print_models(answer.get("models") or [])
    _print_types(answer.get("types") or [])


@app.command("set-model")
def set_model(
    ctx: typer.Context,
    model: Model,
    requests: Annotated[str | None, typer.Option(help="Requests a minute, or none: as learnt from OpenAI.", show_default=False)] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens a minute, or none: as learnt from OpenAI.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Set the rate limits of a model for all tenants; the lower one of yours and OpenAI's holds. For admins of all tenants.

    \b
    headrace limits set-model gpt-4o-mini --requests 500 --tokens 200000
    headrace limits set-model gpt-4o-mini --tokens none
    """
    given = {"requests": _number("--requests", requests, "requests"), "tokens": _number("--tokens", tokens, "tokens")}
    body = {name: None if value == NONE else value for name, value in given.items() if value is not None}
    if not body:
        raise UsageError("Say which limit to set: --requests or --tokens.")
    answer = session(ctx).api.put(f"/limits/models/{quote(model, safe='')}", body)
    if as_json:
        output.print_json(answer)
    else:
        _print_models([answer])


@app.command("set")
def set_limits(
    ctx: typer.Context,
    tenant: Tenant,
    weight: Annotated[float | None, typer.Option(help="Its share, compared with other tenants.", show_default=False)] = None,
    fair_by: Annotated[
        str | None,
        typer.Option(help="user: its users start as many jobs as each other. tenant: its jobs start by lane and age.", show_default=False),
    ] = None,
    concurrency: Annotated[str | None, typer.Option(help="How many of its jobs run at once, or none.", show_default=False)] = None,
    user_concurrency: Annotated[str | None, typer.Option(help="The same for each of its users, or none.", show_default=False)] = None,
    queued: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LANE=JOBS", help="How many of its jobs may be unfinished: low=500, total=9000, low=none.", show_default=False
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(help="Shards of the indexes for its jobs: 1, 2, 4, 8 or 16, never fewer than before.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set limits of a tenant. What is not given stays; none: as the settings of the stage say. For admins of all tenants.

    \b
    headrace limits set acme --concurrency 50 --user-concurrency 5 --queued low=10000
    headrace limits set acme --shards 4
    """
    given: dict[str, Any] = {
        "weight": weight,
        "fair_by": fair_by,
        "concurrency": _jobs("--concurrency", concurrency),
        "user_concurrency": _jobs("--user-concurrency", user_concurrency),
        "queued": dict(_lane_and_jobs(one) for one in queued) if queued else None,
        "shards": shards,
    }
    body = {name: None if value == NONE else value for name, value in given.items() if value is not None}
    if not body:
        raise UsageError("Say which limit to set: --weight, --fair-by, --concurrency, --user-concurrency, --queued or --shards.")
    answer = session(ctx).api.put(f"/limits/tenants/{quote(tenant, safe='')}", body)
    if as_json:
        output.print_json(answer)
    else:
        _print([answer])


def _jobs(option: str, value: str | None) -> int | str | None:
    return _number(option, value, "jobs")


def _number(option: str, value: str | None, unit: str) -> int | str | None:
    if value is None or value == NONE:
        return value
    if not (value.isascii() and value.isdecimal()):
        raise UsageError(f"{option} takes a number of {unit}, or none; not {value!r}.")
    return int(value)


def _lane_and_jobs(one: str) -> tuple[str, int | None]:
    lane, equals, jobs = one.partition("=")
    if not equals:
        raise UsageError(f"--queued takes a lane and a number of jobs, such as low=500; not {one!r}.")
    number = _jobs("--queued", jobs)
    return lane, number if isinstance(number, int) else None


def _print(rows: list[dict[str, Any]]) -> None:
    table = Listing(COLUMNS, whole=("running", "each user"), folded=("queued",), spare=("shards", "weight", "fair by"))
    for row in rows:
        queued = ", ".join(f"{lane} {jobs}" for lane, jobs in (row.get("queued") or {}).items() if jobs is not None)
        table.add_row(
            str(row["tenant"]),
            f"{row['weight']:g}",
            row.get("fair_by") or "",
            _used(row.get("running"), row.get("concurrency")),
            _used(row.get("user_running"), row.get("user_concurrency")),
            queued,
            str(row.get("shards") or ""),
        )
    table.print()


def _used(running: Any, limit: Any) -> str:
    if limit is None:
        return ""
    return f"{running} of {limit}" if running is not None else f"of {limit}"


def _print_models(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Listing(MODEL_COLUMNS, whole=MODEL_COLUMNS[:1])
    for row in rows:
        used = row.get("used") or {}
        table.add_row(
            row["model"],
            _used(used.get("requests"), row.get("requests")),
            _used(used.get("tokens"), row.get("tokens")),
            row.get("source") or "",
            row.get("blocked_until") or "",
            *_waiting(row.get("waiting") or {}),
        )
    table.print()


def _print_types(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Listing(TYPE_COLUMNS, whole=TYPE_COLUMNS[:1])
    for row in rows:
        starts = _used(row.get("starts"), row.get("per_minute"))
        table.add_row(row["job_type"], _used(row.get("running"), row.get("concurrency")), starts, *_waiting(row.get("waiting") or {}))
    table.print()


def _waiting(waiting: dict[str, Any]) -> tuple[str, str]:
    """The jobs that wait: the tenant's own by lane; those of others, by tenant where the key may know."""
    own = ", ".join(f"{lane} {waiting[lane]}" for lane in LANES if waiting.get(lane))
    by_tenant = waiting.get("by_tenant")
    others = ", ".join(f"{tenant} {jobs}" for tenant, jobs in by_tenant.items()) if by_tenant else str(waiting.get("others") or "")
    return own, f"{others} or more" if waiting.get("more") else others
