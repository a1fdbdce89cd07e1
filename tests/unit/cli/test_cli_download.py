"""`headrace download` against a fake server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.server import JOB, Answer, FakeServer, error, run

DOWNLOAD, OBJECT = f"GET /jobs/{JOB}/download", "GET /bucket/export.csv"
SAVED = {"Content-Disposition": f'attachment; filename="../{JOB}-export.csv"'}


@pytest.fixture
def server_with_file(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """The server of a job whose file is behind a redirect."""
    monkeypatch.chdir(tmp_path)
    server.plan(DOWNLOAD, Answer(307, {"object": "export.csv"}, {"Location": f"{server.api_url}/bucket/export.csv"}))
    server.plan(OBJECT, Answer(200, "job_id\r\njob_1\r\n", SAVED))
    return server


def test_download_saves_under_the_name_of_the_file(server_with_file: FakeServer, tmp_path: Path) -> None:
    """It is saved in the current folder: the `../` of the name is ignored."""
    assert run("download", JOB) == 0

    assert (tmp_path / f"{JOB}-export.csv").read_bytes() == b"job_id\r\njob_1\r\n"


def test_download_saves_to_the_output_option(server_with_file: FakeServer, tmp_path: Path) -> None:
    assert run("download", JOB, "-o", "mine.csv") == 0

    assert (tmp_path / "mine.csv").read_bytes() == b"job_id\r\njob_1\r\n"


def test_download_writes_to_stdout(server_with_file: FakeServer, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("download", JOB, "-o", "-") == 0

    assert capfdbinary.readouterr().out == b"job_id\r\njob_1\r\n"


def test_download_of_an_unfinished_job_exits_3_without_a_file(
    server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server.plan(DOWNLOAD, Answer(202, {"status": "processing"}))

    assert run("download", JOB, "-o", str(tmp_path / "x")) == 3

    assert "processing" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_download_of_a_job_without_a_file_exits_2(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(DOWNLOAD, error(404, "nothing_to_download", "This job makes nothing."))

    assert run("download", JOB) == 2
    assert "makes nothing" in capsys.readouterr().err
