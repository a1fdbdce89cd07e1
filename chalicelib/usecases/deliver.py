"""Try a delivery: take it up, send it, write down what came of it, and when it is tried again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from chalicelib.domain import delivery as domain
from chalicelib.domain.delivery import Delivery, Outcome
from chalicelib.domain.errors import BadMessage, NotSent, StaleVersion
from chalicelib.domain.job import Ms
from chalicelib.domain.lanes import DELIVERIES
from chalicelib.domain.recipients import Channel
from chalicelib.ports import Posted
from chalicelib.usecases.correspond import book_for, seal_of
from chalicelib.usecases.post_office import PostOffice, read_errand, wake

ROUNDS = 3
AHEAD_MS = 65_000  # what comes due before the next sweep is sent now, with a delay
EACH = 100  # of each part of what is open, for one sweep
GONE = 410


def deliver_message(office: PostOffice, body: str) -> str:
    """What a message of the queue asks for; the answer names what came of it. What fails, the sweep finds again: nothing is raised."""
    try:
        owner, delivery_id = read_errand(body)
    except BadMessage as exc:
        office.log("a message is no delivery", error=exc)
        office.queues.send_to_dead_letter(DELIVERIES, body, exc.message)
        return "set aside"
    try:
        return deliver(office, owner, delivery_id)
    except Exception as exc:  # noqa: BLE001 - what one delivery does must not happen to the others of its batch
        office.log("a delivery was left to the sweep", delivery_id=delivery_id, job_id=owner, error=exc)
        return "left"


def deliver(office: PostOffice, owner: str, delivery_id: str) -> str:
    """Try it once, if it is due and nobody is at it.

    Raises:
        Unavailable: a store did not answer. It may have been sent; it is tried again when whoever had it is given up.
    """
    mine = _claimed(office, owner, delivery_id)
    if mine is None:
        return "not now"
    outcome = _attempt(office, mine)
    new = domain.settle(mine, outcome, office.clock.now(), office.random())
    try:
        office.deliveries.replace(mine, new)
    except StaleVersion:
        office.log("a delivery was taken over", delivery_id=mine.id, job_id=mine.owner, tenant=mine.tenant)
        return "taken over"
    if new.is_open:
        wake(office, new)
    _note(office, new, outcome)
    return new.state.value


def send_forgotten(office: PostOffice, until: Ms) -> Counter[str]:
    """What the sweep does: send for what is due and has no message any more, or could not be given one yet."""
    done: Counter[str] = Counter()
    for delivery in office.deliveries.due(office.clock.now() + AHEAD_MS, EACH):
        now = office.clock.now()
        if now >= until:
            done["left"] += 1
        elif delivery.locked_until <= now:
            try:
                wake(office, delivery)
                office.deliveries.replace(delivery, domain.look_later(delivery, now))
                done["sent"] += 1
            except StaleVersion:
                continue  # somebody has just taken it up
            except Exception as exc:  # noqa: BLE001 - one that fails must not stop the others
                office.log("a delivery could not be swept", delivery_id=delivery.id, tenant=delivery.tenant, error=exc)
    return done


def _claimed(office: PostOffice, owner: str, delivery_id: str) -> Delivery | None:
    seen = office.deliveries.get(owner, delivery_id)
    for _ in range(ROUNDS):
        mine = domain.claim(seen, office.clock.now()) if seen is not None else None
        if seen is None or mine is None:
            return None
        try:
            office.deliveries.replace(seen, mine)
        except StaleVersion as stale:
            seen = stale.current
        else:
            return mine
    return None


def _attempt(office: PostOffice, delivery: Delivery) -> Outcome:
    began = office.clock.now()
    try:
        posted = _CHANNELS[delivery.channel](office, delivery)
    except NotSent as exc:
        return Outcome(ms=office.clock.now() - began, error=exc.message, final=exc.final)
    except Exception as exc:  # noqa: BLE001 - a fault of ours: it is tried again, and people see that it failed
        office.log("a delivery broke", delivery_id=delivery.id, job_id=delivery.owner, tenant=delivery.tenant, error=exc)
        return Outcome(ms=office.clock.now() - began, error="something went wrong on our side")
    return _judged(posted, office.clock.now() - began)


def _judged(posted: Posted | None, took: Ms) -> Outcome:
    if posted is None or 200 <= posted.status < 300:
        return Outcome(ms=took, status=posted.status if posted else None)
    if 300 <= posted.status < 400:
        error = "redirects are not followed"
    elif posted.status == GONE:
        error = "the receiver says that it is gone"
    else:
        error = f"the receiver answered {posted.status}"
    asked = posted.retry_after if posted.status in (429, 503) else None
    return Outcome(ms=took, status=posted.status, error=error, retry_after=asked, final=posted.status == GONE)


def _post_webhook(office: PostOffice, delivery: Delivery) -> Posted:
    return post_signed(office, delivery.tenant, delivery.address, delivery.message_id, delivery.payload)


def post_signed(office: PostOffice, tenant: str, url: str, message_id: str, payload: str) -> Posted:
    """Post a message as Standard Webhooks says: signed anew for each attempt, with every secret that is valid.

    Raises:
        NotSent: there was no answer, or none may be asked for.
    """
    now = office.clock.now()
    signed = office.sign(seal_of(office, tenant).active(now), message_id, now, payload)
    return office.webhook_client.post(url, payload.encode(), {"Content-Type": "application/json", **signed})


def _post_to_slack(office: PostOffice, delivery: Delivery) -> Posted:
    """The address book decides at the moment of sending: what was taken out of it is written to no more."""
    url = book_for(office, delivery.tenant, delivery.recipient).slack[delivery.address]
    text = f"*{_escaped(delivery.subject)}*\n{_escaped(delivery.payload)}"
    return office.webhook_client.post(url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})


def _send_mail(office: PostOffice, delivery: Delivery) -> None:
    book_for(office, delivery.tenant, delivery.recipient)
    office.email.send(delivery.address, delivery.subject, delivery.payload)


def _escaped(text: str) -> str:
    """As Slack wants text that is not its markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_CHANNELS: dict[Channel, Callable[[PostOffice, Delivery], Posted | None]] = {
    Channel.WEBHOOK: _post_webhook,
    Channel.SLACK: _post_to_slack,
    Channel.EMAIL: _send_mail,
}


def _note(office: PostOffice, delivery: Delivery, outcome: Outcome) -> None:
    office.log(
        "a delivery was tried",
        delivery_id=delivery.id,
        job_id=delivery.owner,
        tenant=delivery.tenant,
        channel=delivery.channel.value,
        state=delivery.state.value,
        tried=delivery.attempt_count,
        status=outcome.status,
        ms=outcome.ms,
        reason=outcome.error,
    )
