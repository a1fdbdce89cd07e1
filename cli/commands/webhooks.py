"""`headrace deliveries`: the notifications of a job or a batch."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.listing import Listing
from cli.session import Json, session
from cli.usage import text_id

Owner = Annotated[
    str,
    typer.Argument(metavar="JOB|BATCH", help="The id of the job or the batch.", show_default=False, callback=text_id("job or a batch")),
]
COLOURS = {"delivered": "green", "pending": "yellow", "failed": "red"}


def deliveries(
    ctx: typer.Context,
    job: Owner,
    retry: Annotated[
        str | None,
        typer.Option(help="Send this delivery again: dlv_... For operators.", show_default=False, callback=text_id("delivery")),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the webhooks, e-mails and Slack messages of a job or a batch, with their attempts.

    \b
    headrace deliveries job_01J...
    headrace deliveries batch_01J...
    headrace --as operator deliveries job_01J... --retry dlv_4f...
    """
    api, path = session(ctx).api, f"/{'batches' if job.startswith('batch_') else 'jobs'}/{job}/deliveries"
    answer = api.post(f"{path}/{retry}/retry") if retry is not None else api.get(path)
    rows = [answer] if retry is not None else answer["data"]
    if as_json:
        output.print_json(answer)
    elif not rows:
        output.note("No deliveries so far.")
    else:
        _print_deliveries(rows)


def _print_deliveries(deliveries: list[dict[str, Any]]) -> None:
    from rich.text import Text

    table = Listing(
        ["delivery", "status", "event", "to", "attempts", "last", "next"],
        whole=("delivery", "status", "attempts", "next"),
        spare=("next", "attempts", "event", "last", "to"),
    )
    for delivery in deliveries:
        attempts = delivery.get("attempts") or []
        table.add_row(
            delivery["delivery_id"],
            Text(delivery["status"], style=COLOURS.get(delivery["status"], "")),
            delivery["event"],
            output.clean(f"{delivery['channel']}: {delivery['address']}"),
            str(len(attempts)),
            output.clean(_outcome(attempts[-1])) if attempts else "",
            delivery.get("next_attempt_at") or "",
        )
    table.print()


def _outcome(attempt: dict[str, Any]) -> str:
    return str(attempt.get("error") or attempt.get("status_code") or "sent")
