"""The laptop cloud, shared by all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Api, Model, Stack, running_stack


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
