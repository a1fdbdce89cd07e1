"""Send frames to many sockets at once, within a time and without ever failing.

A socket that hangs takes a thread for `SEND_MS`, so no send starts later than that before the end.
A frame that is not sent is not repeated: frames are states with versions, and a client that hears
nothing subscribes again (protocol rule 13: silence makes the client subscribe again).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.frames import Frame
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.domain.units import Ms
from chalicelib.ports import ParallelMap
from chalicelib.services.retrying import call_with_retry
from chalicelib.services.scheduling.waits import describe_wait
from chalicelib.services.streaming.subscriptions import StreamingContext, send_frame

SEND_MS = 4_000  # of a post without an answer: a second to connect and three to read (`adapters/aws/client.py`)


class BroadcastContext(StreamingContext, Protocol):
    """What sending to many sockets needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


def broadcast_states(ctx: BroadcastContext, jobs: Iterable[Job], until: Ms) -> int:
    """Send these states to the subscribers of their jobs, the states of a job in the given order.

    States without a frame (`domain/streaming/frames.py`) cost nothing; jobs that nobody has ever
    watched cost a hundredth of a request each. Never raises.

    Returns:
        How many frames were sent.
    """
    states: defaultdict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if frames.state(job, ctx.clock.now()) is not None:
            states[job.id].append(job)
    try:
        found = ctx.parallel_map(partial(_subscriptions_of, ctx, until), _watched(ctx, list(states), until))
        targets = [each for subscriptions in found for each in subscriptions or ()]
        watched = list(dict.fromkeys(one.job_id for one in targets))
        made = ctx.parallel_map(lambda job_id: _frames_of(ctx, states[job_id], until - SEND_MS), watched)
        content = dict(zip(watched, made, strict=True))
        sent = ctx.parallel_map(lambda one: _send_states(ctx, states[one.job_id][-1], content[one.job_id], until - SEND_MS, one), targets)
    except Exception as exc:  # noqa: BLE001 - it must not fail the batch, whose other consumers have done their work
        ctx.log("states_not_broadcast", jobs=len(states), error=exc)
        return 0
    if None in found or None in sent:
        ctx.log("states_not_broadcast", jobs=found.count(None), sockets=sent.count(None))
    return sum(filter(None, sent))


def send_frames(
    ctx: StreamingContext, subscription: Subscription, content: Sequence[Frame], last_start: Ms, may_see: Callable[[Caller], bool]
) -> int | None:
    """Send frames to one subscriber, in order, if its API key may still see them.

    A socket that takes no frames now gets none of the later ones either.

    Args:
        last_start: no send is started after this.

    Returns:
        How many were sent; None if there was no time for all of them.

    Raises:
        Unavailable: the key or the subscription could not be read or removed.
    """
    sent = 0
    if ctx.clock.now() >= last_start:
        return None
    caller = ctx.caller_by_key_hash(subscription.key_hash)
    if caller is None or not may_see(caller):
        return 0
    try:
        for frame in content:
            if ctx.clock.now() >= last_start:
                return None
            send_frame(ctx, subscription, frame)
            sent += 1
    except (ConnectionGone, ConnectionBusy):
        return sent  # dropped by `send_frame`, or the client subscribes again when it hears nothing
    return sent


def _watched(ctx: BroadcastContext, job_ids: Sequence[str], until: Ms) -> Sequence[str]:
    """Return the jobs that may have subscribers, by their controls.

    A subscription changes `subscribers_version` before its handler reads the record, and this reads
    after the record was written, so one of the two sees the other (protocol rule 14: write first,
    then read).
    """
    if len(job_ids) == 1:
        return job_ids  # one query costs no more than its controls
    controls = call_with_retry(ctx.clock, partial(ctx.subscriptions.controls, job_ids, consistent=True), until) if job_ids else {}
    return [job_id for job_id in job_ids if job_id in controls and controls[job_id].subscribers_version]


def _subscriptions_of(ctx: BroadcastContext, until: Ms, job_id: str) -> list[Subscription] | None:
    """Return the open subscriptions to a job; None if they could not be read in time."""
    now = ctx.clock.now()
    if now >= until - SEND_MS:
        return None
    try:
        found = call_with_retry(ctx.clock, partial(ctx.subscriptions.for_job, job_id), until)
    except Exception as exc:  # noqa: BLE001 - the other jobs are broadcast
        ctx.log("states_not_broadcast", job_id=job_id, error=exc)
        return None
    return [each for each in found if each.expires_at > now]


def _send_states(ctx: BroadcastContext, job: Job, content: Sequence[Frame], last_start: Ms, subscription: Subscription) -> int | None:
    try:
        return send_frames(ctx, subscription, content, last_start, lambda caller: caller.may_read_content(job))
    except Exception as exc:  # noqa: BLE001 - the other sockets get theirs
        ctx.log("states_not_broadcast", job_id=job.id, error=exc)
        return None


def _frames_of(ctx: BroadcastContext, jobs: Sequence[Job], last_start: Ms) -> list[Frame]:
    """The frames of the states of a job. What it waits for now is read for the last one, if there is time."""
    content = []
    for job in jobs:
        now = ctx.clock.now()
        wait = describe_wait(ctx, job) if job is jobs[-1] and now < last_start else None
        if (frame := frames.state(job, now, wait)) is not None:
            content.append(frame)
    return content
