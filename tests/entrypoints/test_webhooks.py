"""Webhooks and other notifications, through `app.py`. The receiver verifies signatures with the Standard Webhooks library."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from chalicelib.adapters.webhooks.http_client import GuardedHttpClient
from chalicelib.adapters.webhooks.signing import signed_headers
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.notifications.network_policy import networks
from chalicelib.settings import Settings, SettingsError, settings
from tests.kit.change_records import change
from tests.kit.deliveries import HOOK
from tests.kit.http import CONTEXT, Api
from tests.kit.receiver import Receiver, answer, receiver
from tests.kit.replies import field_errors
from tests.kit.triggers import deliver
from tests.kit.work import sweep, work

SLACK = "https://hooks.slack.com/services/T0/B0/abcdefgh"


def run(api: Api, job_id: str) -> None:
    """Run a job to its end and publish the change."""
    before = api.job(job_id)
    work(api, before.lane)
    api.module.on_job_change({"Records": [change(before, api.job(job_id))]}, CONTEXT)


def deliveries(api: Api, job_id: str, token: str = "user") -> Any:
    reply = api.call("GET", f"/jobs/{job_id}/deliveries", token=token)
    assert reply.status == 200, reply.text
    return reply.json["data"]


def put_allowlist(api: Api) -> None:
    allowlist = {"emails": ["Ops@acme.com"], "slack": {"alerts": SLACK}}
    assert api.call("PUT", "/webhooks/addresses", allowlist, "admin").status == 200


@pytest.fixture
def hook_receiver(api: Api, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A receiver on this machine, in a network that the stage allows."""
    monkeypatch.setenv("HEADRACE_WEBHOOK_NETWORKS", "127.0.0.0/8")
    settings.cache_clear()
    api.container.webhook_client = GuardedHttpClient(networks(settings().webhook_networks))
    api.container.settings = settings()  # type: ignore[assignment]
    api.container.clock.advance(time.time() - api.container.clock.now() / 1000)
    with receiver() as made:
        yield made
    monkeypatch.undo()
    settings.cache_clear()


def test_a_receiver_can_verify_the_signature_of_a_delivery(api: Api, hook_receiver: Receiver) -> None:
    """The receiver uses the Standard Webhooks library and the secret shown to an admin."""
    secret = api.call("GET", "/webhooks", token="admin").json["secret"]
    job_id = api.submit(webhook_url=hook_receiver.url())

    run(api, job_id)
    assert hook_receiver.received == []  # the consumer only stores the delivery; `deliver` sends it
    deliver(api)

    (request,) = hook_receiver.received
    event = Webhook(secret).verify(request.body, request.headers)
    (delivery,) = deliveries(api, job_id)
    assert (event["type"], event["data"]["job_id"], event["data"]["status"]) == ("job.completed", job_id, "completed")
    assert event["id"] == request.headers["webhook-id"] == delivery["message_id"]
    assert (delivery["status"], delivery["channel"], delivery["address"], delivery["event"]) == (
        "delivered",
        "webhook",
        hook_receiver.url(),
        "job.completed",
    )
    assert [(one["status_code"], one["error"]) for one in delivery["attempts"]] == [(204, None)]
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(request.body + b" ", request.headers)


def test_both_secrets_verify_a_delivery_during_a_rotation(api: Api, hook_receiver: Receiver) -> None:
    """Some receivers still know only the old secret, others already only the new one."""
    old = api.call("GET", "/webhooks", token="admin").json["secret"]
    rotated = api.call("POST", "/webhooks/rotate", {}, "admin").json
    job_id = api.submit(webhook_url=hook_receiver.url())

    run(api, job_id)
    deliver(api)

    (request,) = hook_receiver.received
    assert rotated["secret"] != old
    assert rotated["previous_valid_until"] is not None
    for secret in (old, rotated["secret"]):
        assert Webhook(secret).verify(request.body, request.headers)["type"] == "job.completed"
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "b3RoZXI=").verify(request.body, request.headers)


def test_a_signature_matches_the_standard_webhooks_example() -> None:
    """The example comes from the specification's own test suites."""
    headers = signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330_000, '{"test": 2432232314}'
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_failed_delivery_attempt_is_recorded_and_retried(api: Api, hook_receiver: Receiver) -> None:
    """The record has the status code, and nothing of the receiver's response body."""
    answers = iter([500, 204])
    hook_receiver.respond = lambda handler: answer(handler, next(answers), b"internal: password=hunter2")
    job_id = api.submit(webhook_url=hook_receiver.url())
    run(api, job_id)
    deliver(api)
    (delivery,) = deliveries(api, job_id)
    assert (delivery["status"], delivery["attempts"][0]["error"]) == ("pending", "the receiver answered 500")
    assert delivery["next_attempt_at"] is not None
    assert "hunter2" not in str(delivery)

    api.container.clock.advance(6)
    deliver(api)

    assert [one["status_code"] for one in deliveries(api, job_id)[0]["attempts"]] == [500, 204]


def test_deliveries_to_slow_receivers_run_in_parallel(api: Api, hook_receiver: Receiver) -> None:
    """Ten deliveries of one queue batch take about as long as a single delivery."""
    hook_receiver.respond = lambda handler: (time.sleep(0.3), answer(handler, 204))[1]
    for _ in range(10):
        run(api, api.submit(webhook_url=hook_receiver.url()))
    began = time.monotonic()

    deliver(api)

    assert len(hook_receiver.received) == 10
    assert time.monotonic() - began < 2


def test_a_webhook_to_a_private_address_is_refused_by_default(api: Api) -> None:
    """The URL is refused at submission."""
    for url in ("http://127.0.0.1:9/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest", "https://localhost/"):
        errors = field_errors(api.call("POST", "/jobs", {"prompt": "x", "webhook_url": url}))
        assert "public" in errors["webhook_url"] or "https" in errors["webhook_url"]


def test_a_delivery_to_a_host_with_a_private_address_fails_after_three_attempts(api: Api) -> None:
    """A host name is resolved only when the delivery is sent; the delivery log shows the error."""
    api.container.webhook_client = GuardedHttpClient(resolve=lambda _host, _port: ["127.0.0.1"])  # type: ignore[assignment]
    job_id = api.submit(webhook_url="https://inside.example.com/hook")
    run(api, job_id)

    statuses = []
    for _ in range(3):
        deliver(api)
        statuses.append(deliveries(api, job_id)[0]["status"])
        api.container.clock.advance(301)

    (delivery,) = deliveries(api, job_id)
    assert statuses == ["pending", "pending", "failed"]
    assert [attempt["error"] for attempt in delivery["attempts"]] == ["the host is not at a public address"] * 3


def test_only_allowed_recipients_are_accepted(api: Api) -> None:
    """The error lists the allowed recipients."""
    before = field_errors(api.call("POST", "/jobs", {"prompt": "x", "notify": ["email:me@evil.example"]}))
    put_allowlist(api)
    errors = field_errors(
        api.call("POST", "/jobs", {"prompt": "x", "notify": ["email:me@evil.example", "slack:other", "fax:1", "email:no-domain"]})
    )

    assert "no addresses yet" in before["notify.0"]
    assert errors["notify.0"] == errors["notify.1"] == "is not allowed; allowed are email:ops@acme.com, slack:alerts"
    assert errors["notify.2"] == errors["notify.3"] == "must be email:<address> or slack:<name>"
    assert api.submit(notify=["email:ops@ACME.com", "slack:alerts"])


def test_a_recipient_allowlist_applies_to_its_tenant_only(api: Api) -> None:
    put_allowlist(api)

    assert "not allowed" in field_errors(api.call("POST", "/jobs", {"prompt": "x", "notify": ["slack:alerts"]}, "stranger"))["notify.0"]


def test_an_email_recipient_is_refused_when_email_is_not_configured(api: Api) -> None:
    put_allowlist(api)
    api.container.email.sender = None

    errors = field_errors(api.call("POST", "/jobs", {"prompt": "x", "notify": ["email:ops@acme.com"]}))

    assert errors["notify.0"] == "e-mail is not configured for this stage"


def test_email_and_slack_recipients_are_notified(api: Api) -> None:
    """The delivery log does not show the Slack URL, which is a secret."""
    put_allowlist(api)
    job_id = api.submit(notify=["email:ops@acme.com", "slack:alerts"])

    run(api, job_id)
    deliver(api)

    assert [to for to, _, _ in api.container.email.sent] == ["ops@acme.com"]
    assert [request.url for request in api.container.webhook_client.requests] == [SLACK]
    shown = str(deliveries(api, job_id))
    assert "slack" in shown
    assert SLACK not in shown


def test_a_job_without_recipients_stores_no_deliveries(api: Api) -> None:
    job_id = api.submit(webhook_url=None, notify=[])

    run(api, job_id)

    assert deliveries(api, job_id) == []
    assert not api.job(job_id).notifies


def test_all_invalid_recipients_are_reported_at_once(api: Api) -> None:
    errors = field_errors(api.call("POST", "/jobs", {"prompt": "x", "webhook_url": "http://x.example/", "notify": ["a"]}))

    assert set(errors) == {"webhook_url", "notify.0"}
    assert field_errors(api.call("POST", "/jobs", {"prompt": "x", "webhook_url": 5, "notify": "email:x"})).keys() == {
        "webhook_url",
        "notify",
    }


def test_the_sweeper_resends_a_lost_delivery_message(api: Api) -> None:
    job_id = api.submit(webhook_url=HOOK)
    run(api, job_id)
    api.container.queues.messages["deliveries"] = []

    sweep(api, 180)
    deliver(api)

    assert deliveries(api, job_id)[0]["status"] == "delivered"


def test_deliveries_are_stored_when_subscribers_cannot_be_notified(api: Api) -> None:
    """A frame that is not sent is no dead letter: nobody could send it again."""
    job_id = api.submit(webhook_url=HOOK)
    before = api.job(job_id)
    after = replace(before, status=Status.CANCELLED, version=2, due_at=None, finished_at=1)

    def unreachable(*_: Any) -> Any:
        raise RuntimeError

    api.container.subscriptions.controls = unreachable  # type: ignore[method-assign]
    api.module.on_job_change({"Records": [change(before, after)]}, CONTEXT)

    assert api.container.queues.dead_lettered["stream"] == []
    assert deliveries(api, job_id)[0]["event"] == "job.cancelled"


def test_webhook_secrets_and_recipients_require_an_admin(api: Api) -> None:
    for method, path in (
        ("GET", "/webhooks"),
        ("POST", "/webhooks/rotate"),
        ("PUT", "/webhooks/addresses"),
        ("POST", "/webhooks/test"),
    ):
        assert {
            token: api.call(method, path, {} if method != "GET" else None, token).status for token in ("viewer", "user", "operator")
        } == {
            "viewer": 403,
            "user": 403,
            "operator": 403,
        }


def test_a_slack_url_is_masked_and_kept_when_sent_as_null(api: Api) -> None:
    put_allowlist(api)

    shown = api.call("PUT", "/webhooks/addresses", {"slack": {"alerts": None}}, "admin").json["addresses"]
    gone = field_errors(api.call("PUT", "/webhooks/addresses", {"slack": {"other": None}}, "admin"))

    assert shown == {"emails": ["ops@acme.com"], "slack": {"alerts": "https://hooks.slack.com/...efgh"}}
    assert gone == {"slack.other": "has no stored URL to keep"}
    assert api.container.notification_settings.allowlist("acme").slack == {"alerts": SLACK}


@pytest.mark.parametrize(
    "allowlist",
    [
        {"emails": ["no address"]},
        {"emails": ["a@b.example\r\nBcc: x@y.example"]},
        {"emails": "a@b.example"},
        {"slack": {"Alerts": SLACK}},
        {"slack": {"alerts": "http://hooks.slack.com/x"}},
        {"slack": {"alerts": "https://10.0.0.1/"}},
        {"slack": {"alerts": 5}},
        {"other": 1},
    ],
)
def test_an_invalid_recipient_allowlist_changes_nothing(api: Api, allowlist: Any) -> None:
    put_allowlist(api)

    assert field_errors(api.call("PUT", "/webhooks/addresses", allowlist, "admin"))
    assert api.container.notification_settings.allowlist("acme").names == ["email:ops@acme.com", "slack:alerts"]


def test_an_admin_can_send_a_test_event_to_a_webhook(api: Api, hook_receiver: Receiver) -> None:
    """The event is signed and sent once, and the response reports the outcome."""
    secret = api.call("GET", "/webhooks", token="admin").json["secret"]

    sent = api.call("POST", "/webhooks/test", {"url": hook_receiver.url()}, "admin").json
    hook_receiver.respond = lambda handler: answer(handler, 302, Location="http://169.254.169.254/")
    redirected = api.call("POST", "/webhooks/test", {"url": hook_receiver.url()}, "admin").json
    inside = field_errors(api.call("POST", "/webhooks/test", {"url": "https://10.0.0.1/"}, "admin"))

    assert (sent["delivered"], sent["status_code"], sent["error"]) == (True, 204, None)
    assert Webhook(secret).verify(hook_receiver.received[0].body, hook_receiver.received[0].headers)["type"] == "webhook.test"
    assert (redirected["delivered"], redirected["status_code"]) == (False, 302)
    assert inside == {"url": "must be a public address"}


def test_an_operator_can_retry_a_delivery(api: Api) -> None:
    job_id = api.submit(webhook_url=HOOK)
    run(api, job_id)
    deliver(api)
    (delivery,) = deliveries(api, job_id)
    path = f"/jobs/{job_id}/deliveries/{delivery['delivery_id']}/retry"

    assert api.call("POST", path, {}, "user").status == 403
    assert api.call("POST", path, {}, "stranger").status == 404
    assert api.call("POST", f"/jobs/{job_id}/deliveries/dlv_none/retry", {}, "operator").json["error"]["code"] == "delivery_not_found"
    assert api.call("POST", path, {}, "operator").status == 202
    deliver(api)

    assert len(deliveries(api, job_id)[0]["attempts"]) == 2


def test_deliveries_are_visible_only_to_the_owner_and_operators(api: Api) -> None:
    job_id = api.submit(webhook_url=HOOK)
    path = f"/jobs/{job_id}/deliveries"

    assert {token: api.call("GET", path, token=token).status for token in ("user", "operator", "colleague", "viewer", "stranger")} == {
        "user": 200,
        "operator": 200,
        "colleague": 404,
        "viewer": 403,
        "stranger": 404,
    }


def test_an_invalid_network_setting_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="HEADRACE_WEBHOOK_NETWORKS"):
        Settings.from_env({"HEADRACE_WEBHOOK_NETWORKS": "everything"})
    assert Settings.from_env({"HEADRACE_WEBHOOK_NETWORKS": " 10.1.0.0/16, ::1/128"}).webhook_networks == ("10.1.0.0/16", "::1/128")
    assert Settings.from_env({}).webhook_networks == ()
