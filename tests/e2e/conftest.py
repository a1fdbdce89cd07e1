"""The laptop cloud, shared by all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.chaos import Workers
from tests.e2e.stack import Api, Model, Stack, reached_at, running_stack
from tests.kit.quirky_openai import Limit, QuirkyOpenAI


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running stack of this checkout, or one that runs for these tests only."""
    yield from running_stack()


@pytest.fixture(scope="session")
def api(stack: Stack) -> Api:
    """The API with the key of a user."""
    return stack.api()


@pytest.fixture
def model(stack: Stack) -> Model:
    """A model name that only this test uses."""
    return stack.model()


@pytest.fixture(scope="module")
def quirky_openai(stack: Stack) -> Iterator[QuirkyOpenAI]:
    """The workers' OpenAI for the tests of a module, with quirks that prompts choose.

    Idle workers, which have cached another URL, are killed before and after. `[[rpm]]` takes 20
    requests in 10 seconds.
    """
    workers = Workers(stack, stack.api())
    with QuirkyOpenAI(Limit(20, 10.0)) as openai, reached_at(stack, openai.url):
        workers.end_idle()
        yield openai
    workers.end_idle()
