"""Authorization: a key, a ticket or an open socket has the current rights of the key."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.auth.identity import Key, Role
from chalicelib.entrypoints.http.server import ROUTES
from chalicelib.services.auth.authenticate import secret_hash
from chalicelib.services.streaming.broadcast_states import SEND_MS, broadcast_states
from tests.kit.http import Api
from tests.kit.sockets import Socket
from tests.kit.work import work

# Every route: the least role, and its effect. `own`: it changes and shows only what belongs to the
# tenant of the key, whatever it finds. `stage`: it changes what all tenants share, so that it needs
# a key of all tenants. A new route has to be added here, with a thought about the other tenants.
ROUTE_MATRIX = {
    "GET /batches": ("viewer", "own"),
    "POST /batches": ("user", "own"),
    "DELETE /batches/{batch_id}": ("user", "own"),
    "GET /batches/{batch_id}": ("viewer", "own"),
    "GET /batches/{batch_id}/deliveries": ("user", "own"),
    "POST /batches/{batch_id}/deliveries/{delivery_id}/retry": ("operator", "own"),
    "GET /batches/{batch_id}/export": ("user", "own"),
    "POST /batches/{batch_id}/recount": ("operator", "own"),
    "POST /batches/{batch_id}/retry-failed": ("user", "own"),
    "POST /bulk": ("operator", "own"),
    "GET /bulk/{bulk_id}": ("operator", "own"),
    "GET /circuits": ("viewer", "own"),
    "POST /circuits/{model}/close": ("admin", "stage"),
    "POST /circuits/{model}/open": ("admin", "stage"),
    "DELETE /failed-jobs": ("operator", "own"),
    "GET /failed-jobs": ("operator", "own"),
    "POST /failed-jobs/redrive": ("admin", "stage"),
    "POST /failed-jobs/retry": ("operator", "own"),
    "DELETE /failed-jobs/{job_id}": ("operator", "own"),
    "GET /health": ("public", "own"),
    "GET /health/system": ("viewer", "own"),
    "GET /job-types": ("viewer", "own"),
    "GET /job-types/{name}": ("viewer", "own"),
    "GET /jobs": ("viewer", "own"),
    "POST /jobs": ("user", "own"),
    "POST /jobs/estimate": ("user", "own"),
    "DELETE /jobs/{job_id}": ("user", "own"),
    "GET /jobs/{job_id}": ("viewer", "own"),
    "PATCH /jobs/{job_id}": ("user", "own"),
    "GET /jobs/{job_id}/attempts": ("user", "own"),
    "GET /jobs/{job_id}/explain": ("viewer", "own"),
    "POST /jobs/{job_id}/cancel": ("user", "own"),
    "GET /jobs/{job_id}/deliveries": ("user", "own"),
    "POST /jobs/{job_id}/deliveries/{delivery_id}/retry": ("operator", "own"),
    "GET /jobs/{job_id}/download": ("user", "own"),
    "GET /jobs/{job_id}/graph": ("viewer", "own"),
    "GET /jobs/{job_id}/progress": ("viewer", "own"),
    "GET /jobs/{job_id}/progress-history": ("user", "own"),
    "GET /jobs/{job_id}/result": ("user", "own"),
    "POST /jobs/{job_id}/retry": ("user", "own"),
    "GET /jobs/{job_id}/status": ("viewer", "own"),
    "GET /jobs/{job_id}/stream": ("user", "own"),
    "GET /jobs/{job_id}/text": ("user", "own"),
    "GET /limits": ("viewer", "own"),
    "GET /me": ("viewer", "own"),
    "GET /openapi.json": ("public", "own"),
    "POST /stream-tickets": ("user", "own"),
    "POST /uploads": ("user", "own"),
    "POST /batches/{batch_id}/pause": ("user", "own"),
    "POST /batches/{batch_id}/resume": ("user", "own"),
    "POST /jobs/{job_id}/pause": ("user", "own"),
    "POST /jobs/{job_id}/resume": ("user", "own"),
    # A scope without a tenant means that of a key of one tenant: `test_pauses.py`.
    "GET /pauses": ("viewer", "own"),
    "POST /pauses": ("operator", "own"),
    "DELETE /pauses/{pause_id}": ("operator", "own"),
    "GET /queues": ("viewer", "own"),
    "GET /queues/{queue}": ("viewer", "own"),
    "POST /queues/{queue}/pause": ("operator", "own"),
    "POST /queues/{queue}/resume": ("operator", "own"),
    "GET /webhooks": ("admin", "own"),
    "PUT /webhooks/addresses": ("admin", "own"),
    "PUT /limits/models/{model}": ("admin", "stage"),
    "PUT /limits/tenants/{tenant}": ("admin", "stage"),
    "POST /webhooks/rotate": ("admin", "own"),
    "POST /webhooks/test": ("admin", "own"),
}
BODIES: dict[str, dict[str, Any]] = {
    "POST /circuits/{model}/open": {"reason": "moving"},
    "PUT /limits/models/{model}": {"requests": 3},
    "PUT /limits/tenants/{tenant}": {"concurrency": 3},
}


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def put_key_of_all_tenants(api: Api) -> str:
    """Store a key of all tenants and return its token."""
    key = Key(id="key_all", hash=secret_hash("hr_all"), tenant="house", user="hal", role=Role.ADMIN, created_at=1, all_tenants=True)
    api.container.api_keys.put_key(key)
    return "all"


def test_every_route_has_its_role_and_its_effect_in_the_matrix(api: Api) -> None:
    served = {f"{route.method} {route.path}": (route.role.label if route.role else "public", route.effect.value) for route in ROUTES}

    assert served == ROUTE_MATRIX


@pytest.mark.parametrize("route", [route for route, (_, effect) in ROUTE_MATRIX.items() if effect == "stage"])
def test_a_route_with_an_effect_on_the_stage_needs_a_key_of_all_tenants(api: Api, route: str) -> None:
    """An admin of one tenant is refused, in words that say why; a ticket of such a key is no key."""
    method, path = route.split()
    url, body = path.replace("{model}", "gpt-4o-mini").replace("{tenant}", "acme"), BODIES.get(route, {})

    refused = [api.call(method, url, body, token) for token in ("admin", "stranger", "operator", "viewer")]
    allowed = api.call(method, url, body, "stage_admin")

    assert {reply.status for reply in refused} == {403}
    assert "a key of all tenants" in refused[0].json["error"]["message"]
    assert allowed.status == 200
    api.change_key("stage_admin", role=Role.OPERATOR)
    assert api.call(method, url, body, "stage_admin").status == 403


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
