"""Tables at the widths of terminals: what has to be read or copied is whole, and what has no room is named."""

from __future__ import annotations

from typing import Any

import pytest

from cli.listing import Listing
from tests.unit.cli.server import JOB, Answer, FakeServer, run

BATCH = "batch_01JABCDEFGHJKMNPQRSTVWXYZ0"
MOMENT = "2026-11-22T01:00:00Z"
PAGES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "batch list": (
        "GET /batches",
        {
            "batch_id": BATCH,
            "name": "audit of the winter",
            "status": "completed_with_failures",
            "counts": {"total": 10_000},
            "cost": "12.5",
        },
        [BATCH, "completed_with_failures"],
    ),
    "list": (
        "GET /jobs",
        {"job_id": JOB, "status": "incomplete", "job_type": "transcript_analysis", "priority": "normal", "cost": "0.1"},
        [JOB, "incomplete"],
    ),
    f"batch status {BATCH} --detailed": (
        f"GET /batches/{BATCH}",
        {"row": 9_999, "id": "a-long-name-of-a-row", "job_id": JOB, "status": "processing", "cost": "0.000123", "reason": "rate_limit"},
        [JOB, "processing"],
    ),
}


@pytest.mark.parametrize("width", ["60", "80", "200"])
@pytest.mark.parametrize("command", PAGES)
def test_ids_and_statuses_are_whole_at_every_width(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, width: str
) -> None:
    route, row, whole = PAGES[command]
    monkeypatch.setenv("COLUMNS", width)
    page = {"success": True, "data": [{"created_at": MOMENT, **row}], "batch_id": BATCH, "status": "processing", "counts": {"total": 1}}
    server.plan(route, Answer(200, page))

    assert run(*command.split()) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [text for text in whole if not any(text in line for line in lines)] == []
    assert max(map(len, lines)) <= int(width)


class TestListing:
    @pytest.fixture
    def show(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        def show(width: int) -> tuple[list[str], str]:
            monkeypatch.setenv("COLUMNS", str(width))
            table = Listing(["id", "name", "cost", "when"], whole=("id", "cost"), spare=("when", "cost"))
            table.add_row("x" * 20, "n" * 30, "$0.0001", "5 minutes ago")
            table.print()
            shown = capsys.readouterr()
            return [line.rstrip() for line in shown.out.splitlines()], shown.err

        return show

    def test_wide_terminal_shows_everything(self, show: Any) -> None:
        lines, notes = show(200)

        assert lines[1].split() == ["x" * 20, "n" * 30, "$0.0001", "5", "minutes", "ago"]
        assert notes == ""

    def test_free_text_is_cut_before_a_column_is_left_out(self, show: Any) -> None:
        lines, notes = show(60)

        assert lines[1].startswith("x" * 20)
        assert "$0.0001" in lines[1]
        assert "…" in lines[1]
        assert notes == ""

    def test_narrow_terminal_leaves_out_the_least_important_columns_and_names_them(self, show: Any) -> None:
        lines, notes = show(42)

        assert lines[0].split() == ["id", "name", "cost"]
        assert lines[1].startswith("x" * 20)
        assert lines[1].endswith("$0.0001")
        assert "too narrow for: when." in notes

    def test_terminal_that_is_narrower_than_an_id_shows_it_in_several_lines(self, show: Any) -> None:
        lines, _ = show(16)

        assert "".join(lines[1:]).count("x") == 20
