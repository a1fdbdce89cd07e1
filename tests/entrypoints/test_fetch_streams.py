"""Event streams for programs that read them with `fetch` instead of EventSource."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.kit.app_server import serve
from tests.kit.http import Api
from tests.kit.paths import ROOT
from tests.kit.work import work

WATCH = ROOT / "clients" / "js" / "watch.mjs"
LIST_EVENTS = """
const {events} = await import(process.argv[5]); const seen = [];
const options = {lastEventId: process.argv[4], wait: async () => {}};
for await (const {id, event} of events(...process.argv.slice(1, 4), options)) seen.push(`${event} ${id}`);
console.log(JSON.stringify(seen));
"""


def run_node(*arguments: str) -> str:
    """Run node with these arguments, and return what it printed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, so the JavaScript client cannot be run")
    run = subprocess.run([node, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_a_fetch_client_reads_slice_after_slice_to_the_end_of_the_job(api: Api) -> None:
    """The first slice of a job that has not started has nothing but the state."""
    job_id = api.submit()
    original, asked = api.container.jobs.get, 0

    def work_after_the_first_slice(wanted: str) -> object:
        nonlocal asked
        asked += 1
        if asked == 4:
            work(api)
        return original(wanted)

    api.container.jobs.get = work_after_the_first_slice  # type: ignore[method-assign]
    with serve(api) as (url, sent):
        assert run_node(str(WATCH), url, "hr_user", job_id) == "Hello, world"

    assert len(sent) > 1
    assert [answer.request.headers.get("Last-Event-ID") for answer in sent][1]


def test_a_fetch_client_continues_from_the_position_that_it_names(api: Api) -> None:
    job_id = api.submit()
    work(api)

    with serve(api) as (url, _sent):
        seen = run_node("--input-type=module", "-e", LIST_EVENTS, url, "hr_user", job_id, "1:5", str(WATCH))

    assert '"tokens 1:12"' in seen
    assert "job_completed 1:12:end" in seen


def test_a_fetch_client_ends_at_once_where_nothing_follows(api: Api) -> None:
    job_id = api.submit()
    work(api)

    with serve(api) as (url, sent):
        seen = run_node("--input-type=module", "-e", LIST_EVENTS, url, "hr_user", job_id, "1:12:end", str(WATCH))

    assert (seen, [answer.status_code for answer in sent]) == ("[]", [204])
