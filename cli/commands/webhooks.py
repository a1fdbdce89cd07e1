"""Who was sent word of the end of a job or a batch, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.session import JobId, Json, session

COLOURS = {"delivered": "green", "pending": "yellow", "failed": "red"}


def deliveries(
    ctx: typer.Context,
    job: JobId,
    retry: Annotated[str | None, typer.Option(help="Deliver this one again: dlv_... (operators).", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """The webhooks, mails and Slack messages of a job or a batch: each attempt, and when the next is.

    \b
    headrace deliveries job_01J...
    headrace deliveries batch_01J...
    headrace --as operator deliveries job_01J... --retry dlv_4f...
    """
    api, place = session(ctx).api, f"/{'batches' if job.startswith('batch_') else 'jobs'}/{job}/deliveries"
    answer = api.post(f"{place}/{retry}/retry") if retry is not None else api.get(place)
    found = [answer] if retry is not None else answer["data"]
    if as_json:
        output.print_json(answer)
    elif not found:
        output.note("Nobody was told of it so far.")
    else:
        _print(found)


def _print(found: list[dict[str, Any]]) -> None:
    from rich.text import Text

    table = output.table_of(["delivery", "status", "event", "to", "attempts", "last", "next"])
    for one in found:
        tries = one.get("attempts") or []
        table.add_row(
            one["delivery_id"],
            Text(one["status"], style=COLOURS.get(one["status"], "")),
            one["event"],
            output.clean(f"{one['channel']}: {one['address']}"),
            str(len(tries)),
            output.clean(_last(tries[-1])) if tries else "",
            one.get("next_attempt_at") or "",
        )
    output.stdout().print(table)


def _last(attempt: dict[str, Any]) -> str:
    return str(attempt.get("error") or attempt.get("status_code") or "sent")
