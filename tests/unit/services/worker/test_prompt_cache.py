"""Prompts of different tenants at a provider that caches the beginnings of prompts for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.jobs.job import Usage
from chalicelib.ports import ModelRequest, Price, ResponseEnded
from chalicelib.settings import Settings, SettingsError
from tests.kit.provider import MODEL, Script
from tests.kit.world import ALICE, World

OTHER = replace(ALICE, tenant="other")
LONG = "The same long document. " * 500


def requests(world: World) -> list[ModelRequest]:
    """The requests of two tenants with the same prompt and key, and of one of them with another key."""
    for caller, key in ((ALICE, "mine"), (OTHER, "mine"), (ALICE, "mine"), (ALICE, "else"), (ALICE, None)):
        world.submit(LONG, caller=caller, config={"system_prompt": "Be brief.", "openai": {"prompt_cache_key": key} if key else {}})
        world.deliver()
    return world.provider.requests


def test_each_tenant_has_cache_keys_of_its_own() -> None:
    """The caller's own key still tells its prompts apart, and equal ones stay equal."""
    first, other, again, different, without = (request.extra["prompt_cache_key"] for request in requests(World()))

    assert first == again
    assert len({first, other, different, without}) == 4
    assert {len(key) for key in (first, other, without)} == {32}


@pytest.mark.parametrize(("setting", "shared"), [("organisation", True), ("tenant", False)])
def test_with_isolation_no_beginning_of_a_prompt_is_that_of_another_tenant(setting: str, shared: bool) -> None:
    world = World()
    world.container.settings = Settings(prompt_cache=setting)

    first, other, again, *_ = (f"{request.instructions}{request.prompt}" for request in requests(world))

    assert first == again
    assert (first == other) is shared
    assert (first[:60] == other[:60]) is shared
    assert first.endswith(f"Be brief.{LONG}")


def test_usage_and_cost_stay_as_the_provider_counted_them() -> None:
    usage = Usage(input=2_000, cached=1_024, output=10)
    world = World(Script(end=ResponseEnded(usage, MODEL)))
    world.container.prices.prices[MODEL] = price = Price(input=100, cached=10, output=400)
    job = world.submit(LONG)
    world.deliver()

    assert (world.job(job).usage, world.job(job).cost) == (usage, price.cost(usage))


def test_an_unknown_prompt_cache_is_refused() -> None:
    with pytest.raises(SettingsError, match="HEADRACE_PROMPT_CACHE"):
        Settings.from_env({"HEADRACE_PROMPT_CACHE": "none"})
    assert Settings.from_env({"HEADRACE_PROMPT_CACHE": "tenant"}).prompt_cache == "tenant"
