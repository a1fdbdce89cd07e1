"""Answers that do not fit their schema: what is accepted, and what the next attempt changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.failures import AttemptFailed, ProviderConnectionLost, ProviderRateLimited, ProviderUnavailable
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.prompts.model_request import JSON_REQUEST
from tests.kit.provider import Script
from tests.kit.world import World

PERSON = {"name": "Ada", "born": 1815}
TEXT = json.dumps(PERSON)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "born": {"type": "integer"}},
    "required": ["name", "born"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "name": "person", "schema": SCHEMA}
DRAFT = json.dumps({"name": "Bob", "born": 1})
THOUGHTS = [
    ("<think>", "</think>\n"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>\n", "\n</reasoning>\n"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]
WRONG = '{"name": "Ada", "born": "1815"}'


def run(world: World, prompt: str = "Extract the person.", attempts: int = 4, **config: Any) -> Job:
    job = world.submit(prompt, config={"response_format": FORMAT, **config})
    world.watch(job)
    for _ in range(attempts):
        world.deliver()
        world.clock.advance(400)
    return world.job(job)


def parsed(world: World, job: Job) -> Any:
    result = world.container.results.get(job.id, world.job(job).attempt)
    assert result is not None
    return result.parsed


# ---- what is accepted


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{TEXT}\n```",
        f"I will extract the person now.{TEXT}",
        f"[1] Sure: {TEXT} Anything else?",
        json.dumps({"person": PERSON}),
        json.dumps([PERSON]),
        json.dumps(TEXT),
        f'{{"name": "Ada"}}\nNo, completely: {TEXT}',
        *(f"{begin}Perhaps {DRAFT}?{end}{TEXT}" for begin, end in THOUGHTS),
    ],
)
def test_the_one_document_that_fits_is_the_answer(text: str) -> None:
    """The text is kept as it is."""
    world = World(Script(deltas=[text]))
    job = run(world)

    assert (job.status, job.attempt) == (Status.COMPLETED, 1)
    assert parsed(world, job) == PERSON
    assert world.assembled().text == world.log_text(job) == text


def test_the_last_of_several_messages_is_parsed_and_all_are_streamed() -> None:
    draft = json.dumps({**PERSON, "born": 1816})
    world = World(Script(deltas=[draft], another=[TEXT[:9], TEXT[9:]]))
    job = run(world)

    assert parsed(world, job) == PERSON
    assert world.assembled().text == world.log_text(job) == f"{draft}\n\n{TEXT}"


def test_words_after_the_message_with_the_json_do_not_matter() -> None:
    world = World(Script(deltas=[TEXT], another=["I hope that this helps."]))
    job = run(world)

    assert (job.attempt, parsed(world, job)) == (1, PERSON)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TEXT} or {json.dumps({**PERSON, 'born': 1816})}", "several JSON documents"),
        ("", "is empty"),
        ("I do not know.", "is not JSON"),
        (WRONG, "born must be"),
        (json.dumps({"a": PERSON, "b": PERSON}), "does not fit its schema"),
    ],
)
def test_an_answer_that_could_mean_several_things_or_none_is_invalid(text: str, message: str) -> None:
    job = run(World(Script(deltas=[text])), max_attempts=1)

    assert job.error is not None
    assert (job.error.code, message in job.error.message) == ("output_invalid", True), job.error.message


def test_json_without_a_schema_is_found_as_well() -> None:
    world = World(Script(deltas=[f"```json\n{TEXT}\n```"]))
    job = run(world, response_format="json")

    assert (job.attempt, parsed(world, job)) == (1, PERSON)


# ---- what the next attempt changes


def test_the_next_attempt_is_told_what_was_wrong() -> None:
    """At the end of the prompt, so that the beginning can come from the provider's cache."""
    world = World(Script(deltas=[WRONG]), Script(deltas=[TEXT]))
    job = run(world)

    first, second = world.provider.requests
    assert job.status is Status.COMPLETED
    assert second.prompt.startswith(f"{first.prompt}\n\n")
    assert "born must be a whole number" in second.prompt or "born must be" in second.prompt


def test_an_answer_that_is_wrong_in_the_same_way_again_is_not_bought_a_third_time() -> None:
    world = World(Script(deltas=[WRONG]))
    job = run(world, max_attempts=5)

    assert len(world.provider.requests) == 2
    assert (job.status, job.attempt, job.error and job.error.code) == (Status.FAILED, 2, "output_invalid")


def test_an_answer_that_is_wrong_in_another_way_is_asked_for_again() -> None:
    world = World(Script(deltas=[WRONG]), Script(deltas=["sorry"]), Script(deltas=[TEXT]))
    job = run(world)

    assert (job.status, job.attempt) == (Status.COMPLETED, 3)
    assert "is not JSON" in world.provider.requests[2].prompt
    assert "born" not in world.provider.requests[2].prompt.removeprefix("Extract the person.")


@pytest.mark.parametrize("between", [ProviderRateLimited(retry_after=30), ProviderUnavailable(), ProviderConnectionLost()])
def test_what_was_wrong_is_not_forgotten_by_an_attempt_in_between_that_fails_in_another_way(between: AttemptFailed) -> None:
    """Such as one that is refused by a rate limit. The equal answer after it is not bought a third time."""
    world = World(Script(deltas=[WRONG]), Script(error=between, refuses=True), Script(deltas=[WRONG]))
    job = run(world, attempts=8, max_attempts=5)

    first, second, third = world.provider.requests
    assert first.prompt == "Extract the person."
    assert "born must be" in second.prompt
    assert third.prompt == second.prompt
    assert (job.status, job.error and job.error.code) == (Status.FAILED, "output_invalid")


def test_a_new_run_begins_without_the_words_about_an_old_answer() -> None:
    from chalicelib.services.jobs.retry_job import retry_job

    world = World(Script(deltas=[WRONG]), Script(deltas=[WRONG]), Script(deltas=[TEXT]))
    job = run(world)
    retry_job(world.container, job)
    world.deliver()

    assert [request.prompt == "Extract the person." for request in world.provider.requests] == [True, False, True]
    assert world.job(job).status is Status.COMPLETED


def test_the_corrected_answer_is_cached_for_the_request_as_it_was() -> None:
    world = World(Script(deltas=[WRONG]), Script(deltas=[TEXT]))
    run(world, cache=True)
    again = run(world, cache=True)

    assert len(world.provider.requests) == 2
    assert (again.attempt, again.cost, parsed(world, again)) == (1, 0, PERSON)


def test_a_successor_of_a_durable_attempt_sends_no_other_request() -> None:
    world = World(Script(deltas=[WRONG]), Script(deltas=[TEXT[:9], TEXT[9:]], every=20))
    job = world.submit("Extract the person.", config={"response_format": FORMAT, "durable": True})
    world.deliver()
    world.clock.advance(10)
    world.deliver(seconds=30)
    handed_over = world.job(job)
    world.deliver()

    assert handed_over.reason == "handed_over"
    assert (world.job(job).status, len(world.provider.requests)) == (Status.COMPLETED, 2)
    assert world.job(job).attempt == 2


# ---- JSON mode


@pytest.mark.parametrize(
    ("prompt", "added"),
    [("List three colours.", True), ("List three colours as JSON.", False), ("a json list", False), ("Say json-tools.", True)],
)
def test_json_mode_has_the_word_in_the_prompt(prompt: str, added: bool) -> None:
    world = World(Script(deltas=["[]"]))
    run(world, prompt, response_format="json")

    [request] = world.provider.requests
    assert request.json
    assert request.prompt == (f"{prompt}\n\n{JSON_REQUEST}" if added else prompt)


def test_other_formats_do_not_change_the_prompt() -> None:
    world = World(Script(deltas=[TEXT]))
    run(world, "Colours?")
    run(world, "Colours?", response_format="text")

    assert {request.prompt for request in world.provider.requests} == {"Colours?"}


@pytest.mark.parametrize(("said", "sent"), [({}, False), ({"strict": True}, True), ({"strict": False}, False)])
def test_strict_is_what_the_caller_says(said: dict[str, bool], sent: bool) -> None:
    """By default it is false, as at OpenAI."""
    world = World(Script(deltas=[TEXT]))
    run(world, response_format={**FORMAT, **said})
    run(world, response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, **said}})

    assert [request.schema and request.schema["strict"] for request in world.provider.requests] == [sent, sent]
