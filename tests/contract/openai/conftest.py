"""Fixtures of the tests of the OpenAI provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.quirky_openai import QuirkyOpenAI


@pytest.fixture
def quirky_openai() -> Iterator[QuirkyOpenAI]:
    """A server with a quirk for each prompt that names one: `[[flagged]] hello`."""
    with QuirkyOpenAI() as openai:
        yield openai
