"""A page from another origin follows a job: with EventSource and the JavaScript client."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.e2e.stack import Api, Model, Stack, words

TEXT = "\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \u2028 \u05e9\u05dc\u05d5\u05dd " + words(150)
EVENTS = ["connected", "tokens", "progress", "milestone", "reset", "gap", "job_completed", "stream_error"]

# Resolves some time after the end, so that a wrong reconnect would be recorded.
WATCH_BY_EVENT_SOURCE = """
([url, names]) => new Promise((resolve, reject) => {
  const seen = { events: [], errors: [], text: "" };
  const source = new EventSource(url);
  setTimeout(() => { source.close(); reject(new Error(`no end: ${JSON.stringify(seen.events.slice(-3))}`)); }, 60000);
  for (const name of names) {
    source.addEventListener(name, (event) => {
      const data = JSON.parse(event.data);
      seen.events.push([name, event.lastEventId]);
      if (name === "tokens") seen.text += data.text;
    });
  }
  source.onmessage = () => reject(new Error("an event without a name"));
  source.onerror = () => {
    seen.errors.push(source.readyState);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => resolve(seen), 1500);
  };
})
"""

WATCH_BY_WEBSOCKET = """
async ([url, jobId]) => {
  const { Assembly } = await import("/reducer.mjs");
  const assembly = new Assembly();
  const kinds = [];
  const socket = new WebSocket(url);
  const follow = (outcomes) => {
    for (const outcome of outcomes) {
      kinds.push(outcome.kind);
      if (outcome.kind === "ask") socket.send(JSON.stringify({
        action: "subscribe", job_id: jobId, attempt: outcome.attempt, offset: outcome.offset }));
    }
  };
  await new Promise((resolve, reject) => {
    socket.onopen = () => follow(assembly.resubscribe());
    socket.onmessage = (message) => {
      follow(assembly.receive(JSON.parse(message.data)));
      if (assembly.over) resolve();
    };
    socket.onclose = () => reject(new Error("closed before the end"));
    setTimeout(() => reject(new Error(`no end: ${kinds.slice(-3)}`)), 60000);
  });
  socket.onclose = null;
  socket.close();
  return { text: assembly.text, status: assembly.status, position: assembly.position, kinds };
}
"""


def test_an_event_source_gets_the_whole_text_and_stops(stack: Stack, api: Api, model: Model, page: Page) -> None:
    """The text comes over several requests, and the browser does not reconnect after the end."""
    model.reply(TEXT)
    accepted = api.call("POST", "/jobs", {"prompt": "hello", "config": model.config, "ticket": True}).json()
    url = f"{stack.api_url}/jobs/{accepted['job_id']}/stream?ticket={accepted['ticket']}"
    statuses: list[int] = []
    page.on("response", lambda response: statuses.append(response.status) if "/stream?" in response.url else None)

    seen = page.evaluate(WATCH_BY_EVENT_SOURCE, [url, EVENTS])
    result = api.wait_for_end(accepted["job_id"])

    names = [name for name, _ in seen["events"]]
    assert seen["text"] == result["output"] == TEXT
    assert names.count("job_completed") == 1
    assert names[-1] == "job_completed"
    assert seen["events"][-1][1] == f"1:{len(TEXT)}:end"
    assert "stream_error" not in names
    assert seen["errors"][-1] == 2  # CLOSED
    assert set(seen["errors"][:-1]) == {0}  # CONNECTING, between two slices
    assert statuses[-1] == 204
    assert statuses.count(204) == 1
    assert statuses.count(200) == len(statuses) - 1 > 2


def test_an_event_source_with_a_wrong_ticket_is_closed(stack: Stack, api: Api, model: Model, page: Page) -> None:
    """The browser does not reconnect."""
    model.reply("Nothing for you.")
    job_id = api.submit(config=model.config)

    seen = page.evaluate(WATCH_BY_EVENT_SOURCE, [f"{stack.api_url}/jobs/{job_id}/stream?ticket=hrt_wrong", EVENTS])

    assert (seen["events"], seen["errors"]) == ([], [2])


def test_javascript_client_assembles_the_text(stack: Stack, api: Api, model: Model, page: Page) -> None:
    """A browser's WebSocket sends no headers, hence a ticket; offsets count code points."""
    model.reply(TEXT)
    accepted = api.call("POST", "/jobs", {"prompt": "hello", "config": model.config, "ticket": True}).json()

    seen = page.evaluate(WATCH_BY_WEBSOCKET, [f"{stack.ws_url}?ticket={accepted['ticket']}", accepted["job_id"]])
    result = api.wait_for_end(accepted["job_id"])

    assert seen["text"] == result["output"] == TEXT
    assert (seen["status"], seen["position"]) == ("completed", len(TEXT))
    assert seen["kinds"].count("appended") > 2
    assert seen["kinds"].count("finished") == 1
