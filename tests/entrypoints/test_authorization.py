"""Authorization: a key, a ticket or an open socket has the current rights of the key."""

from __future__ import annotations

import pytest

from chalicelib.domain.auth.identity import Key, Role
from chalicelib.services.auth.authenticate import secret_hash
from chalicelib.services.streaming.broadcast_states import SEND_MS, broadcast_states
from tests.kit.http import Api
from tests.kit.sockets import Socket
from tests.kit.work import work


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def put_key_of_all_tenants(api: Api) -> str:
    """Store a key of all tenants and return its token."""
    key = Key(id="key_all", hash=secret_hash("hr_all"), tenant="house", user="hal", role=Role.ADMIN, created_at=1, all_tenants=True)
    api.container.api_keys.put_key(key)
    return "all"


def test_a_ticket_has_the_current_rights_of_its_key(api: Api) -> None:
    """A key demoted to user loses other users' jobs (404); demoted to viewer, all jobs (403)."""
    job_id = api.submit("user")
    ticket = api.call("POST", "/stream-tickets", {}, "operator").json["ticket"]
    url = f"/jobs/{job_id}/stream?ticket={ticket}"
    assert api.call("GET", url, token=None).status == 200

    api.change_key("operator", role=Role.USER)
    assert api.call("GET", url, token=None).status == 404
    api.change_key("operator", role=Role.VIEWER)
    assert api.call("GET", url, token=None).status == 403


def test_a_ticket_gains_no_rights_when_its_key_is_promoted(api: Api) -> None:
    """The ticket stays limited to the jobs named in it."""
    named, other = api.submit("user"), api.submit("user")
    ticket = api.call("POST", "/stream-tickets", {"jobs": [named]}).json["ticket"]
    api.change_key("user", role=Role.ADMIN)

    assert api.call("GET", f"/jobs/{named}/stream?ticket={ticket}", token=None).status == 200
    assert api.call("GET", f"/jobs/{other}/stream?ticket={ticket}", token=None).status == 404


def test_an_open_socket_has_the_current_rights_of_its_key(api: Api) -> None:
    """A lowered role applies to later actions on the socket and to announced ends of jobs."""
    socket = Socket(api)
    assert socket.connect("operator") == 200
    seen, later = api.submit("user"), api.submit("user")
    assert socket.send({"action": "subscribe", "job_id": seen})[0]["event"] == "connected"
    api.change_key("operator", role=Role.VIEWER)

    [frame] = socket.send({"action": "subscribe", "job_id": later})
    assert (frame["event"], frame["code"]) == ("error", "forbidden")
    [frame] = socket.send({"action": "cancel", "job_id": seen})
    assert frame["code"] == "forbidden"
    api.call("DELETE", f"/jobs/{seen}")
    assert broadcast_states(api.container, [api.job(seen)], api.container.clock.now() + 2 * SEND_MS) == 0


def test_a_ticket_socket_gains_no_rights_when_its_key_is_promoted(api: Api) -> None:
    named, other = api.submit("user"), api.submit("user")
    socket = Socket(api)
    socket.connect(ticket=api.call("POST", "/stream-tickets", {"jobs": [named]}).json["ticket"])
    api.change_key("user", role=Role.ADMIN)

    assert socket.send({"action": "subscribe", "job_id": named})[0]["event"] == "connected"
    assert socket.send({"action": "subscribe", "job_id": other})[0]["code"] == "job_not_found"
    assert socket.send({"action": "cancel", "job_id": named})[0]["code"] == "forbidden"


def test_a_ticket_for_no_jobs_or_for_all_tenants_is_refused(api: Api) -> None:
    """An empty list must not mean every job, and a key of all tenants must name the jobs."""
    token = put_key_of_all_tenants(api)
    job_id = api.submit()

    empty = api.call("POST", "/stream-tickets", {"jobs": []})
    everything = api.call("POST", "/stream-tickets", {}, token)

    assert (empty.status, everything.status) == (400, 400)
    assert everything.json["error"]["details"][0]["path"] == "jobs"
    assert api.call("POST", "/stream-tickets", {"jobs": [job_id]}, token).status == 201
    assert api.call("POST", "/stream-tickets", {"jobs": None}).status == 201


@pytest.mark.parametrize("name", ["job_1", "x" * 64, ""])
def test_a_ticket_request_with_an_invalid_job_id_returns_404(api: Api, name: str) -> None:
    assert api.call("POST", "/stream-tickets", {"jobs": [name]}).status == 404


def test_a_key_lists_only_the_jobs_of_its_own_tenant(api: Api) -> None:
    """Only a key of all tenants may filter by another tenant; for other keys that is a 403."""
    token = put_key_of_all_tenants(api)
    job_id = api.submit()

    own = api.call("GET", "/jobs?tenant=acme", token="operator")
    refused = api.call("GET", "/jobs?tenant=other", token="operator")
    across = api.call("GET", "/jobs?tenant=acme", token=token)

    assert [row["job_id"] for row in own.json["data"]] == [job_id]
    assert (refused.status, refused.json["error"]["code"]) == (403, "forbidden")
    assert [row["job_id"] for row in across.json["data"]] == [job_id]
    assert api.call("GET", "/jobs", token=token).json["data"] == []


@pytest.mark.parametrize("message", [{"job_id": "job_" + "0" * 25}, {"job_id": "job_" + "I" * 26}])
def test_socket_actions_with_an_invalid_job_id_answer_job_not_found(api: Api, message: dict[str, str]) -> None:
    socket = Socket(api)
    socket.connect("user")

    for action in ("subscribe", "unsubscribe", "cancel"):
        [frame] = socket.send({"action": action, **message})
        assert frame["code"] == "job_not_found"


def test_an_error_frame_stays_below_32_kb(api: Api) -> None:
    """A message with a thousand invalid fields must not produce a frame too large to send."""
    socket = Socket(api)
    socket.connect("user")
    sizes: list[int] = []
    post = api.container.sockets.post
    api.container.sockets.post = lambda *call: (sizes.append(len(call[2])), post(*call))  # type: ignore[method-assign,return-value,func-returns-value]

    [frame] = socket.send({"action": "ping", **{f"\x01{number:05}" * 14: 1 for number in range(1000)}})

    assert frame["code"] == "invalid_request"
    assert max(sizes) < 32_000


def test_a_socket_with_an_unchanged_key_receives_the_whole_text(api: Api) -> None:
    socket = Socket(api)
    socket.connect("operator")
    job_id = api.submit("user")
    socket.send({"action": "subscribe", "job_id": job_id})

    work(api)

    assert socket.assembled.text == "Hello, world"
