"""A page from an allowed origin uses the API with a key: preflights and exposed headers."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.e2e.stack import Api, Model, Stack

CALL = """
async ([method, url, key, body]) => {
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() };
  const answer = await fetch(url, { method, headers, body: body === null ? undefined : JSON.stringify(body) });
  const exposed = Object.fromEntries(["X-Request-Id", "ETag", "RateLimit"].map((name) => [name, answer.headers.get(name)]));
  return { status: answer.status, json: await answer.json(), headers: exposed };
}
"""


def test_a_page_submits_reads_and_cancels(stack: Stack, api: Api, model: Model, page: Page) -> None:
    """Each request needs a preflight, because it carries a key."""
    model.reply("From a page.")
    key = stack.tokens["user"]

    created = page.evaluate(CALL, ["POST", f"{stack.api_url}/jobs", key, {"prompt": "hello", "config": model.config}])
    job_id = created["json"]["job_id"]
    api.wait_for_end(job_id)
    read = page.evaluate(CALL, ["GET", f"{stack.api_url}/jobs/{job_id}", key, None])
    cancelled = page.evaluate(CALL, ["DELETE", f"{stack.api_url}/jobs/{job_id}", key, None])

    assert (created["status"], read["status"], cancelled["status"]) == (202, 200, 200)
    assert read["json"]["status"] == "completed"
    assert read["headers"]["ETag"]
    assert read["headers"]["X-Request-Id"]
    assert read["headers"]["RateLimit"]


def test_a_page_can_read_api_and_gateway_errors(stack: Stack, page: Page) -> None:
    wrong_key = page.evaluate(CALL, ["GET", f"{stack.api_url}/jobs", "hr_wrong", None])
    fetch = "async (url) => { const a = await fetch(url); return [a.status, await a.json()] }"
    unknown_route = page.evaluate(fetch, f"{stack.api_url}/nowhere")

    assert (wrong_key["status"], wrong_key["json"]["error"]["code"]) == (401, "unauthenticated")
    assert (unknown_route[0], unknown_route[1]["error"]["code"]) == (404, "not_found")
