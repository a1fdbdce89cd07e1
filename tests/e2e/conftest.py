"""The laptop cloud, once for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cloud import Api, Model, Stack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running stack of this checkout, or one that is started for these tests and ended after them."""
    yield from running_stack()


@pytest.fixture(scope="session")
def api(stack: Stack) -> Api:
    """The API as an ordinary user."""
    return stack.api()


@pytest.fixture
def model(stack: Stack) -> Model:
    """A model that this test alone talks to."""
    return stack.model()
