"""What all commands share: which API, how to print, how to follow a job to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from cli import output
from cli.api import Api
from cli.errors import Exit
from cli.reducer import TERMINAL, Assembly
from cli.target import Target, find_target

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_...", show_default=False)]
NOT_MODIFIED = 304


@dataclass
class Session:
    """One run of the command line. The API is found when it is first asked."""

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

    def close(self) -> None:
        if self._api is not None:
            self._api.close()


def session(ctx: typer.Context) -> Session:
    """The session that the command line was started with."""
    found = ctx.find_object(Session)
    return found if found is not None else Session()


@contextmanager
def left_running(job_id: str) -> Iterator[None]:
    """Ctrl-C leaves, and the job goes on: that is what it is for."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        output.note(f"\nThe job goes on. To see it:  headrace watch {job_id}\nTo stop it:  headrace cancel {job_id}")
        raise typer.Exit(Exit.INTERRUPTED) from interrupt


def follow(api: Api, job_id: str, as_json: bool, ws_url: str | None = None) -> Assembly:
    """Show a job until its end."""
    from cli.lines import ways
    from cli.screen import screen_for
    from cli.watch import watch

    address = api.target.ws_url or ws_url or socket_address(api, job_id)
    with left_running(job_id), screen_for(as_json) as screen:
        return watch(job_id, ways(api, job_id, address), screen)


def socket_address(api: Api, job_id: str) -> str | None:
    """Where the record says that sockets are; None before the first deployment has told it."""
    links = api.get(f"/jobs/{job_id}").get("links") or {}
    address = links.get("websocket")
    return address if isinstance(address, str) else None


def wait_for_end(api: Api, job_id: str, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """The status of an ended job. The API holds a request until something changed since the answer that the ETag names.

    It may also answer at once, when it holds too many already; then a second passes between two requests.
    """
    etag: str | None = None
    with left_running(job_id):
        while True:
            asked_at = time.monotonic()
            response = api.send("GET", f"/jobs/{job_id}/status", query={"wait": 20}, headers={"If-None-Match": etag} if etag else None)
            if response.status_code != NOT_MODIFIED:
                state: dict[str, Any] = response.json()
                if state["status"] in TERMINAL:
                    return state
                etag = response.headers.get("ETag")
            if time.monotonic() - asked_at < 1.0:
                sleep(1.0)
