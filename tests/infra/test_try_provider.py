"""The command that tries a server in OpenAI's place."""

from __future__ import annotations

import pytest

from infra.try_provider import REQUESTS, main
from tests.kit.quirky_openai import QuirkyOpenAI, Refusal, error


def test_each_request_is_made_once_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with QuirkyOpenAI() as openai:
        assert main([openai.url, "m"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(openai.requests) == len(lines) == len(REQUESTS)
    assert lines[0].startswith("ok      streamed:")
    assert "the answer is not JSON" in lines[2]


def test_a_server_that_refuses_what_is_always_sent_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(asked: object) -> Refusal | None:
        body = getattr(asked, "body", {})
        return Refusal(400, error("Unknown parameter: 'store'.", param="store")) if "store" in body else None

    with QuirkyOpenAI() as openai:
        openai.quirks[""] = refuse
        assert main([openai.url, "m"]) == 0

    assert "HEADRACE_OMIT_PARAMETERS=store" in capsys.readouterr().out


def test_a_server_that_does_not_answer_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with QuirkyOpenAI() as openai:
        openai.quirks[""] = lambda _: Refusal(404, b"404 page not found", content_type="text/plain")
        assert main([openai.url, "m"]) == 1

    assert capsys.readouterr().out.startswith("failed  streamed:")
