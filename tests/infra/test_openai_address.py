"""The address of OpenAI is checked when it is configured, before a job meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from infra.cloud import Cloud
from infra.commands import app
from infra.local import up
from infra.naming import openai_secret_name
from infra.openai_address import AddressRefused, check_api
from infra.openai_key import ensure_openai_secret, put_openai_credentials
from tests.kit.quirky_openai import QuirkyOpenAI, Refusal

CUT = "/v1"


@pytest.fixture
def openai() -> Iterator[QuirkyOpenAI]:
    with QuirkyOpenAI() as server:
        yield server


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield Cloud("dev")


def test_an_address_with_the_api_is_taken(openai: QuirkyOpenAI) -> None:
    assert check_api(openai.url, "sk-1") is None
    assert check_api(openai.url + "/", "sk-1") is None
    assert check_api(None, "sk-1") is None


@pytest.mark.parametrize("path", ["", "/v2", "/api/v3"])
def test_an_address_without_the_api_is_refused_in_the_servers_words(openai: QuirkyOpenAI, path: str) -> None:
    url = openai.url.removesuffix(CUT) + path

    with pytest.raises(AddressRefused, match=r"There is no Responses API at .*404 page not found") as refused:
        check_api(url, "sk-secret-0123")

    assert "sk-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("refusal", "is_api"),
    [
        (Refusal(200, b"<html><title>Welcome</title></html>", content_type="text/html"), False),
        (Refusal(404, {"detail": "Not Found"}), False),
        (Refusal(405, {"detail": "Method Not Allowed"}), False),
        (Refusal(401, {"error": {"message": "no"}}), True),
        (Refusal(400, {"error": {"message": "model is required"}}), True),
        (Refusal(422, {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}), True),
        (Refusal(404, {"error": {"message": "The model `` does not exist", "code": "model_not_found"}}), True),
        (Refusal(500, b"Internal Server Error", content_type="text/plain"), True),
    ],
)
def test_only_an_answer_that_shows_that_there_is_no_api_refuses_an_address(refusal: Refusal, is_api: bool) -> None:
    with QuirkyOpenAI(always=lambda _: refusal) as server:
        if is_api:
            assert check_api(server.url, "sk-1") is None
        else:
            with pytest.raises(AddressRefused):
                check_api(server.url, "sk-1")


def test_an_address_that_redirects_a_request_without_its_content_is_refused() -> None:
    """Such as one of http where the server has moved to https."""
    with (
        QuirkyOpenAI(always=lambda _: Refusal(301, b"", headers={"Location": "/v1/elsewhere"})) as server,
        pytest.raises(AddressRefused, match=r"redirects from .*/v1/responses to .*/v1/elsewhere"),
    ):
        check_api(server.url, "sk-1")


def test_an_address_that_cannot_be_asked_from_here_is_named_and_taken() -> None:
    assert "could not be asked" in (check_api("http://127.0.0.1:9/v1", "sk-1") or "")


@pytest.mark.parametrize("url", ["127.0.0.1:80/v1", "https://h/v1?api-version=1", "https://h/v1#x", "https://h/v1/responses"])
def test_a_wrong_address_is_never_stored(aws: Cloud, url: str) -> None:
    with pytest.raises(AddressRefused):
        put_openai_credentials(aws, {"api_key": "sk-1", "base_url": url})

    assert ensure_openai_secret(aws) is False


def test_a_deployment_says_that_the_stored_address_cannot_be_used(aws: Cloud) -> None:
    secret = json.dumps({"api_key": "sk-1", "base_url": "h/v1"})
    boto3.client("secretsmanager").create_secret(Name=openai_secret_name("dev"), SecretString=secret)

    with pytest.raises(AddressRefused, match="does not begin with https://"):
        ensure_openai_secret(aws)


def test_the_command_that_stores_a_key_refuses_an_address_without_the_api(monkeypatch: pytest.MonkeyPatch, openai: QuirkyOpenAI) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123")
    monkeypatch.setenv("OPENAI_BASE_URL", openai.url.removesuffix(CUT))

    result = CliRunner().invoke(app, ["openai-key", "--stage", "dev"])

    assert isinstance(result.exception, AddressRefused)
    assert "sk-secret" not in str(result.exception)


def test_the_laptop_cloud_does_not_start_with_an_address_without_the_api(monkeypatch: pytest.MonkeyPatch, openai: QuirkyOpenAI) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123")
    monkeypatch.setenv("OPENAI_BASE_URL", openai.url + "/chat")

    with pytest.raises(AddressRefused, match="There is no Responses API"):
        up.up()
