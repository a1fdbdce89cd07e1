"""The validation of answers by schemas of callers: off the event loop, so that the lease is renewed meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.services.prompts.model_request import parsed_output
from tests.kit.hostile_bodies import AMBIGUOUS, doubling, nested
from tests.kit.provider import Script
from tests.kit.world import World

T = TypeVar("T")
VALIDATION_SECONDS = 60.0  # far more than a lease lasts


def hostile_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "name": "n", "schema": schema, "strict": False}


def test_the_lease_is_renewed_every_eight_seconds_while_an_answer_is_validated() -> None:
    """Here the thread of the validation takes a minute; on the loop itself it could not be anywhere else."""
    threads: list[str] = []

    async def offload(call: Callable[..., T], *args: Any) -> T:
        if call is parsed_output:
            threads.append("validation")
            await asyncio.sleep(VALIDATION_SECONDS)
        return call(*args)

    world = World(Script(deltas=['"x"']), offload=offload)
    renewals: list[int] = []
    renew = world.container.leases.renew
    world.container.leases.renew = lambda lease: (renewals.append(world.clock.now()), renew(lease))[1]  # type: ignore[method-assign]
    job = world.submit(config={"response_format": hostile_format(doubling(11))})

    world.deliver()

    assert threads == ["validation"]
    assert world.job(job).status is Status.COMPLETED
    assert len(renewals) >= VALIDATION_SECONDS // 8
    assert {round((later - at) / 1000) for at, later in pairwise(renewals)} == {8}


def test_the_event_loop_goes_on_while_a_hostile_schema_is_validated() -> None:
    """On a real thread: while the schema and the answer are worked on, other tasks of the loop run."""
    schema = {"type": "array", "items": {"anyOf": [{"const": n} for n in range(900)]}}
    text = json.dumps([[0]] * 1_000)
    began, ended = threading.Event(), threading.Event()
    beats = 0

    def validate(call: Callable[..., Any], *args: Any) -> Any:
        began.set()
        try:
            return call(*args)
        finally:
            ended.set()

    async def beat() -> None:
        nonlocal beats
        while not ended.is_set():
            if began.is_set():
                beats += 1
            await asyncio.sleep(0)

    async def offload(call: Callable[..., T], *args: Any) -> T:
        if call is not parsed_output:
            return call(*args)
        beating = asyncio.create_task(beat())
        with ThreadPoolExecutor(1) as pool:
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, lambda: validate(call, *args))
            finally:
                await beating

    world = World(Script(deltas=[text]), offload=offload)
    job = world.submit(config={"response_format": hostile_format(schema), "max_attempts": 1})
    world.deliver()

    assert beats > 10
    assert world.job(job).status is Status.FAILED


@pytest.mark.parametrize(
    ("schema", "answer", "message"),
    [
        (AMBIGUOUS, json.dumps(nested(60, "x")), "is too large for its schema"),
        ({"type": "array"}, "[" + "[]," * 200_000 + "[]]", "values; at most 200,000 are allowed"),
        ({}, "[" * 101 + "]" * 101, "101 levels deep"),
        ({}, "9" * 5_000, "4,300 digits"),
    ],
)
def test_an_answer_that_cannot_be_validated_in_time_fails_with_the_reason(schema: dict[str, Any], answer: str, message: str) -> None:
    world = World(Script(deltas=[answer]))
    job = world.submit(config={"response_format": hostile_format(schema), "max_attempts": 1})

    world.deliver()

    error = world.job(job).error
    assert error is not None
    assert error.code == "output_invalid"
    assert message in error.message


def test_the_last_chunk_has_the_stages_of_the_evaluation() -> None:
    """Though the evaluation gives way to the writers."""

    async def offload(call: Callable[..., T], *args: Any) -> T:
        await asyncio.sleep(0.05)
        return call(*args)

    world = World(Script(), offload=offload)
    job = world.submit()
    world.deliver()

    last = world.container.chunks.last(job.id, 1)
    assert last is not None
    assert "finalization" in [event.get("name") for event in last.events]
