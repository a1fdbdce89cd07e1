"""What the commands share: the session with its API client, parameters, waiting for a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from cli import output
from cli.api import Api, json_of
from cli.errors import Exit
from cli.reducer import TERMINAL, TextAssembler
from cli.target import Target, find_target
from cli.usage import text_id

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of the job, job_...", show_default=False, callback=text_id("job"))]
NOT_MODIFIED = 304
LONG_POLL_SECONDS = 20


@dataclass
class Session:
    """One run of the command line. The API client is created on first use."""

    api_url: str | None = None
    key: str | None = None
    role: str = "user"
    _api: Api | None = field(default=None, repr=False)

    @property
    def target(self) -> Target:
        return find_target(self.api_url, self.key, self.role)

    @property
    def api(self) -> Api:
        if self._api is None:
            self._api = Api(self.target)
        return self._api

    @property
    def answered(self) -> bool:
        """Whether the API has answered anything."""
        return self._api is not None and self._api.answered

    def close(self) -> None:
        if self._api is not None:
            self._api.close()


def session(ctx: typer.Context) -> Session:
    """The session of this run."""
    current = ctx.find_object(Session)
    return current if current is not None else Session()


@contextmanager
def detach_on_interrupt(job_id: str) -> Iterator[None]:
    """On Ctrl-C, exit and leave the job running."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        output.note(f"\nThe job is still running. To watch it:  headrace watch {job_id}\nTo stop it:  headrace cancel {job_id}")
        raise typer.Exit(Exit.INTERRUPTED) from interrupt


def follow_job(api: Api, job_id: str, as_json: bool, ws_url: str | None = None) -> TextAssembler:
    """Show a job live until it ends."""
    from cli.screen import screen_for
    from cli.transports import transports_for
    from cli.watch import watch

    address = api.target.ws_url or ws_url or websocket_url(api, job_id)
    with detach_on_interrupt(job_id), screen_for(as_json) as screen:
        return watch(job_id, transports_for(api, job_id, address), screen)


def websocket_url(api: Api, job_id: str) -> str | None:
    """The WebSocket address from the links of the job.

    None if the deployment has not published one yet.
    """
    links = api.get(f"/jobs/{job_id}").get("links") or {}
    address = links.get("websocket")
    return address if isinstance(address, str) else None


def wait_for_end(api: Api, job_id: str, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Wait by long polling until a job ends and return its status.

    With the ETag of the last answer, the API holds the request until the job changes. An API that
    already holds its maximum of requests answers at once, so requests are at least a second apart.
    """
    etag: str | None = None
    with detach_on_interrupt(job_id):
        while True:
            requested_at = time.monotonic()
            headers = {"If-None-Match": etag} if etag else None
            response = api.request("GET", f"/jobs/{job_id}/status", query={"wait": LONG_POLL_SECONDS}, headers=headers)
            if response.status_code != NOT_MODIFIED:
                state = json_of(response)
                if state["status"] in TERMINAL:
                    return state
                etag = response.headers.get("ETag")
            if time.monotonic() - requested_at < 1.0:
                sleep(1.0)
