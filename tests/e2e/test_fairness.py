"""One tenant with thousands of waiting jobs hardly delays another one's single jobs."""

from __future__ import annotations

import json
import time

from tests.e2e.stack import Api, Model, Stack, make_key
from tests.e2e.test_batches import Batches
from tests.kit.quirky_openai import QuirkyOpenAI
from tests.kit.rate_meter import RateMeter
from tests.summary import SUMMARY

ROWS, URGENT_ROWS = 4_900, 100
JOBS, EVERY = 8, 5.0  # of the other tenant, and seconds between two of them
MOST = 3.0  # times as long as on an empty stage
LEAST_SECONDS = 2.0  # a shorter time on the empty stage is taken for this long: what two processors beside other tests allow


def test_single_jobs_beside_five_thousand_of_another_tenant_take_at_most_three_times_as_long(
    stack: Stack, model: Model, quirky_openai: QuirkyOpenAI
) -> None:
    """The model takes 240 requests a minute, which the other tenant's jobs use up. A hundred of them are
    urgent; it exports its jobs and deletes others meanwhile.
    """
    quirky_openai.meters[model.name] = RateMeter(requests=240)
    small = Api(stack.http, stack.api_url, make_key("small", "user"))
    big = Api(stack.http, stack.api_url, make_key("big", "admin"))
    alone = [_seconds(small, model) for _ in range(4)]

    items = [
        {"prompt": f"row {number}", **({"priority": "urgent"} if number < URGENT_ROWS else {})} for number in range(ROWS + URGENT_ROWS)
    ]
    batch = Batches(big).submit(json.dumps({"items": items, "config": model.config}).encode(), "application/json")["batch_id"]
    try:
        _until_held(big)
        big.submit(job_type="export", input={"filter": {"status": "completed"}}, options={"format": "json"}, prompt=None)
        assert big.call("POST", "/bulk", {"action": "delete", "filter": {"status": "completed"}, "limit": 50}).is_success
        beside = []
        for _ in range(JOBS):
            began = time.monotonic()
            beside.append(_seconds(small, model))
            time.sleep(max(0.0, EVERY - (time.monotonic() - began)))
    finally:
        big.call("DELETE", f"/batches/{batch}")

    slowest, before = sorted(beside)[-1], max(LEAST_SECONDS, sorted(alone)[len(alone) // 2])
    SUMMARY["fairness"] = lambda: [
        f"slowest of {JOBS} jobs beside {ROWS + URGENT_ROWS} of another tenant: {slowest / before:.1f} times as long as alone"
    ]
    assert slowest <= MOST * before


def _seconds(api: Api, model: Model) -> float:
    began = time.monotonic()
    assert api.wait_for_end(api.submit(prompt="hi", config=model.config))["status"] == "completed"
    return time.monotonic() - began


def _until_held(api: Api) -> None:
    """Wait until jobs of the tenant wait for the rate limit."""
    deadline = time.monotonic() + 90
    while not api.get("/jobs", status="held", limit=1)["data"]:
        assert time.monotonic() < deadline, "nothing is held"
        time.sleep(1)
