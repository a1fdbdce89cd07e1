"""The laptop cloud is isolated: its own folder, dummy credentials, this machine only."""

from __future__ import annotations

import json
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from infra.cloud import Cloud
from infra.local import stack_file, up
from infra.local.emulators import HOST, _environment, free_port, llmock, ministack, port_lock
from infra.local.fingerprint import fingerprint
from infra.local.processes import Started

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAREAL",
    "AWS_PROFILE": "production",
    "AWS_SESSION_TOKEN": "real",
    "OPENAI_API_KEY": "sk-real",
}


@pytest.fixture
def real_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("real_credentials")
def test_emulators_get_none_of_the_users_credentials() -> None:
    environment = _environment() | ministack(4566).settings

    assert not set(SECRETS) & set(environment)
    assert not set(SECRETS.values()) & set(environment.values())


@pytest.mark.usefixtures("real_credentials")
def test_a_local_deployment_cannot_reach_aws() -> None:
    environment = Cloud("local", "http://127.0.0.1:4566").environment()

    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert environment["AWS_ACCESS_KEY_ID"] == "test"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(environment)
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"


@pytest.mark.parametrize(("stage", "endpoint"), [("local", None), ("dev", "http://127.0.0.1:4566")])
def test_stage_and_endpoint_that_do_not_match_are_refused(stage: str, endpoint: str | None) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        Cloud(stage, endpoint)


def test_emulators_listen_on_loopback_only() -> None:
    assert ministack(4566).settings["BIND_HOST"] == HOST
    assert llmock(4577).command[-10:][llmock(4577).command[-10:].index("--host") + 1] == HOST


def test_ports_are_chosen_by_one_checkout_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    order: list[str] = []

    def second() -> None:
        with port_lock():
            order.append("second")

    with port_lock():
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()

    assert order == ["first", "second"]


def test_taken_port_is_replaced_by_a_free_one() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert free_port(port) != port


def test_stack_file_is_readable_by_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_file, "FOLDER", tmp_path)
    monkeypatch.setattr(stack_file, "FILE", tmp_path / "stack.json")

    stack_file.write({"stage": "local"})

    assert stack_file.read() == {"stage": "local"}
    assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_broken_stack_file_is_read_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(stack_file, "FILE", tmp_path / "stack.json")
    (tmp_path / "stack.json").write_text(content)

    assert stack_file.read() is None


def test_stack_with_dead_processes_is_not_healthy() -> None:
    dead = stack_file.describe([Started("ministack", 2**22 - 1, 1.0)])

    assert not up._is_healthy({"pids": dead, "tokens": {}, "aws_endpoint": f"http://{HOST}:9"})


def test_fingerprint_changes_with_the_code(tmp_path: Path) -> None:
    (tmp_path / "chalicelib").mkdir()
    (tmp_path / "chalicelib" / "one.py").write_text("1")
    before = fingerprint(tmp_path)

    (tmp_path / "chalicelib" / "one.py").write_text("2")

    assert fingerprint(tmp_path) != before


def test_the_users_own_openai_key_replaces_the_mock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    assert up.openai_credentials("http://127.0.0.1:4577") == {"api_key": "sk-own"}


def test_mock_is_used_without_an_openai_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    credentials = up.openai_credentials("http://127.0.0.1:4577")

    assert credentials["base_url"] == "http://127.0.0.1:4577/v1"
    assert json.dumps(credentials)
