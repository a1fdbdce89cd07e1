"""`headrace download`: what an export made, as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.server import JOB, Answer, FakeServer, error, run

DOWNLOAD, OBJECT = f"GET /jobs/{JOB}/download", "GET /bucket/export.csv"
SAVED = {"Content-Disposition": f'attachment; filename="../{JOB}-export.csv"'}


@pytest.fixture
def made(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A job whose object is at another address."""
    monkeypatch.chdir(tmp_path)
    server.plan(DOWNLOAD, Answer(307, {"object": "export.csv"}, {"Location": f"{server.api_url}/bucket/export.csv"}))
    server.plan(OBJECT, Answer(200, "job_id\r\njob_1\r\n", SAVED))
    return server


def test_it_is_saved_under_its_name(made: FakeServer, tmp_path: Path) -> None:
    """In the folder where one is, whatever else the name says."""
    assert run("download", JOB) == 0

    assert (tmp_path / f"{JOB}-export.csv").read_bytes() == b"job_id\r\njob_1\r\n"


def test_it_is_saved_where_one_says(made: FakeServer, tmp_path: Path) -> None:
    assert run("download", JOB, "-o", "mine.csv") == 0

    assert (tmp_path / "mine.csv").read_bytes() == b"job_id\r\njob_1\r\n"


def test_it_goes_into_a_pipe(made: FakeServer, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("download", JOB, "-o", "-") == 0

    assert capfdbinary.readouterr().out == b"job_id\r\njob_1\r\n"


def test_what_is_not_made_yet_is_said(server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As something that has not ended."""
    server.plan(DOWNLOAD, Answer(202, {"status": "processing"}))

    assert run("download", JOB, "-o", str(tmp_path / "x")) == 3

    assert "processing" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_what_makes_nothing_is_refused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(DOWNLOAD, error(404, "nothing_to_download", "This job makes nothing."))

    assert run("download", JOB) == 2
    assert "makes nothing" in capsys.readouterr().err
