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


@pytest.mark.parametrize(
    ("url", "model", "environment", "code", "words"),
    [
        ("junk", "m", {}, 2, "does not begin with https:// or http://"),
        ("http://127.0.0.1:9/v1?a=b", "m", {}, 2, "query"),
        ("http://127.0.0.1:9/v1", "m\udce9", {}, 2, "not text in UTF-8"),
        ("http://127.0.0.1:9/v1", "m", {"OPENAI_API_KEY": "sk-secret\udce9"}, 2, "a character that a key cannot have"),
        ("https://192.0.2.1/v1", "m", {"HTTPS_PROXY": "socks5://127.0.0.1:9"}, "Failed", "socksio"),
        ("http://127.0.0.1:9/v1", "m", {"HTTPS_PROXY": "junk://x"}, "Failed", "HTTPS_PROXY=junk://x cannot be used"),
    ],
    ids=["address", "query", "model", "key", "socks", "proxy"],
)
def test_what_cannot_work_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    model: str,
    environment: dict[str, str],
    code: object,
    words: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as ended:
        main([url, model])

    said = f"{ended.value.code}{capsys.readouterr().err}"
    assert said.startswith(str(code))
    assert words in said
    assert "sk-secret" not in said
    assert "Traceback" not in said
