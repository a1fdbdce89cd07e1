"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.server import KEY, FakeServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeServer]:
    """A fake API server, and an environment in which the command line uses it."""
    with FakeServer() as server:
        monkeypatch.setenv("HEADRACE_API_URL", server.api_url)
        monkeypatch.setenv("HEADRACE_KEY", KEY)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.delenv("HEADRACE_WS_URL", raising=False)
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.setattr("time.sleep", lambda _: None)
        yield server
