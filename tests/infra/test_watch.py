"""`make watch` detects settled changes of the files that a deployment depends on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local import watch as watching
from infra.local.watch import CHECK_INTERVAL, QUIET_CHECKS, Changes, format_paths


class Script:
    """A `sleep` that runs one planned action per call."""

    def __init__(self, *actions: Callable[[], object] | None) -> None:
        self.actions = list(actions)
        self.checks = 0

    def sleep(self, seconds: float) -> None:
        assert seconds == CHECK_INTERVAL
        self.checks += 1
        action = self.actions.pop(0) if self.actions else None
        if action is not None:
            action()
        assert self.checks < 100, "no change was reported within 100 checks"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("app.py", "requirements.txt", "chalicelib/one.py", "chalicelib/deep/two.py", "infra/tables.py", "docs/page.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    return tmp_path


def test_changed_added_and_removed_files_are_reported(checkout: Path) -> None:
    def change() -> None:
        (checkout / "app.py").write_text("after, and longer")
        (checkout / "chalicelib" / "three.py").write_text("new")
        (checkout / "infra" / "tables.py").unlink()

    assert Changes(checkout, Script(change).sleep).wait() == [Path("app.py"), Path("chalicelib/three.py"), Path("infra/tables.py")]


def test_change_of_the_same_size_is_noticed_by_modification_time(checkout: Path) -> None:
    one = checkout / "chalicelib" / "one.py"
    at = one.stat().st_mtime_ns

    assert Changes(checkout, Script(lambda: os.utime(one, ns=(at, at + 1_000_000))).sleep).wait() == [Path("chalicelib/one.py")]


def test_files_outside_the_deployment_are_ignored(checkout: Path) -> None:
    """Documentation pages and compiled Python files."""

    def others() -> None:
        (checkout / "docs" / "page.md").write_text("another page")
        (checkout / "chalicelib" / "__pycache__").mkdir()
        (checkout / "chalicelib" / "__pycache__" / "one.pyc").write_bytes(b"x")

    script = Script(others, *[None] * 9, lambda: (checkout / "app.py").write_text("at last"))

    assert Changes(checkout, script.sleep).wait() == [Path("app.py")]
    assert script.checks > 10


def test_consecutive_changes_are_reported_together(checkout: Path) -> None:
    """A checkout of another branch is deployed once, when it is done."""
    actions = [lambda number=number: (checkout / "chalicelib" / f"new{number}.py").write_text("x") for number in range(5)]
    script = Script(*actions)  # type: ignore[arg-type]

    assert len(Changes(checkout, script.sleep).wait()) == 5
    assert script.checks == 5 + QUIET_CHECKS


def test_change_during_a_deployment_is_reported_next(checkout: Path) -> None:
    """The deployment may have read the file before it changed."""
    script = Script(lambda: (checkout / "app.py").write_text("once more"))
    changes = Changes(checkout, script.sleep)
    changes.wait()
    (checkout / "chalicelib" / "one.py").write_text("while it was deployed")

    assert changes.wait() == [Path("chalicelib/one.py")]


def test_reverted_change_is_ignored(checkout: Path) -> None:
    """An editor writes a temporary file and removes it again."""
    beside = checkout / "chalicelib" / "one.py~"
    script = Script(lambda: beside.write_text("x"), beside.unlink, *[None] * 5, lambda: (checkout / "app.py").write_text("real"))

    assert Changes(checkout, script.sleep).wait() == [Path("app.py")]


def test_watch_deploys_at_start_and_after_each_change(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the changed files and stops at Ctrl-C."""
    deployed: list[Path] = []

    def up(root: Path) -> None:
        deployed.append(root)
        if len(deployed) == 3:
            raise KeyboardInterrupt
        (checkout / "app.py").write_text("x" * len(deployed))

    monkeypatch.setattr(watching, "_up", up)

    watching.watch(checkout, lambda _: None)

    output = capsys.readouterr().out
    assert deployed == [checkout] * 3
    assert output.count("Changed: app.py") == 2
    assert "No longer watching" in output


def test_long_list_of_files_is_truncated() -> None:
    assert format_paths([Path(str(number)) for number in range(7)]) == "0, 1, 2, 3, 4 and 2 more"
