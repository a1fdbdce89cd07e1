"""Log lines are stable event keys, and docs/operations.md lists each of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.kit.paths import ROOT

LOGGERS = ("log", "_log", "record", "_guarded")  # `_guarded(event, work)` logs `event` if the work fails


def events() -> Iterator[str]:
    for path in (ROOT / "chalicelib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in LOGGERS and isinstance(node.args[0].value, str):
                yield node.args[0].value


def test_log_events_are_snake_case_keys() -> None:
    assert len(set(events())) > 50
    assert [event for event in events() if not re.fullmatch(r"[a-z][a-z0-9_]+", event)] == []


def test_every_log_event_is_listed_in_the_operations_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()

    assert sorted(event for event in set(events()) if f"`{event}`" not in page) == []
