"""The stand-in with quirks itself, through the provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.domain.failures import AttemptFailed
from chalicelib.ports import ModelRequest, ProviderEvent, TextDelta
from tests.kit.quirky_openai import Limit, QuirkyOpenAI


def asked(openai: QuirkyOpenAI, prompt: str, model: str = "gpt-4.1-mini", **fields: Any) -> list[ProviderEvent]:
    """Ask through the real provider. Return the events of the answer."""

    async def run() -> list[ProviderEvent]:
        provider = OpenAIResponses(lambda: Credentials("sk-test-0123456789", openai.url))
        try:
            async with provider.stream(ModelRequest(model=model, prompt=prompt, timeout=10.0, **fields)) as events:
                return [event async for event in events]
        finally:
            await provider.client().close()

    return asyncio.run(run())


def test_a_prompt_without_a_quirk_is_answered(quirky_openai: QuirkyOpenAI) -> None:
    seen = asked(quirky_openai, "hello there")

    assert "".join(one.text for one in seen if isinstance(one, TextDelta)) == "You asked: hello there"
    assert [one.quirk for one in quirky_openai.requests] == [""]


def test_a_limit_refuses_the_request_after_the_last_one_that_it_takes() -> None:
    with QuirkyOpenAI(Limit(1, 60.0)) as openai:
        asked(openai, "[[rpm]] one")
        with pytest.raises(AttemptFailed) as raised:
            asked(openai, "[[rpm]] two")

    assert raised.value.provider_status == 429
