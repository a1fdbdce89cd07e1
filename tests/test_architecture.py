"""The architecture: layers, effects of importing, entry points and sizes of folders."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.__main__ import SUITES

ROOT = Path(__file__).parent.parent
HEAVY = (
    "openai",
    "pynamodb",
    "boto3",
    "botocore.session",
    "botocore.client",
    "jsonschema_rs",
    "genai_prices",
    "ulid",
    "pydantic",
    "httpx2",
)
TRIGGER = re.compile(
    r"\.(on_sqs_message|on_sns_message|on_s3_event|on_dynamodb_record|on_kinesis_record|on_cw_event|on_ws_\w+|schedule|lambda_function)\("
)

# Replaces `os.environ` and records which module reads which variable: the module of the first frame
# outside the standard library.
RECORDER = """
import collections, json, os, sys

class Recorder(collections.UserDict):
    reads = []

    def __getitem__(self, name):
        self.record(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.record(name)
        return self.data.get(name, default)

    def __contains__(self, name):
        self.record(name)
        return name in self.data

    def record(self, name):
        frame = sys._getframe(2)
        while frame.f_globals.get("__name__") in ("os", "_collections_abc", "collections", "__main__") and frame.f_back:
            frame = frame.f_back
        self.reads.append((frame.f_globals.get("__name__"), name))

plain = dict(os.environ)
os.environ = Recorder(plain)
import app
from chalicelib import bootstrap
print(json.dumps({"reads": Recorder.reads, "containers": list(bootstrap._current)}))
"""


def run_in_new_process(code: str) -> Any:
    """Run code in a new process, and return the JSON that it prints."""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_importing_the_app_imports_no_heavy_library() -> None:
    """The SDK costs half a second of a cold start, so it is imported at first use."""
    loaded = run_in_new_process("import app, json, sys; print(json.dumps(sorted(sys.modules)))")

    assert [name for name in HEAVY if name in loaded] == []


def test_importing_the_app_creates_nothing_and_only_settings_read_env() -> None:
    """No adapter and no client is created."""
    seen = run_in_new_process(RECORDER)

    own_reads = {(module, name) for module, name in seen["reads"] if module == "app" or module.startswith("chalicelib")}
    assert {module for module, _ in own_reads} == {"chalicelib.settings"}
    assert all(name.startswith("HEADRACE_") for _, name in own_reads)
    assert seen["containers"] == []


@pytest.mark.parametrize("path", sorted((ROOT / "chalicelib").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_triggers_are_declared_only_in_app_py(path: Path) -> None:
    """Chalice deploys a blueprint's trigger without `app.py` and its middleware."""
    assert TRIGGER.findall(path.read_text()) == []


def test_the_trigger_pattern_matches_the_triggers_in_app_py() -> None:
    assert len(TRIGGER.findall((ROOT / "app.py").read_text())) >= 4


def test_each_layer_imports_only_the_layers_below() -> None:
    """Runs the import-linter contracts in `pyproject.toml`."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = subprocess.run([sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


def test_no_folder_of_code_holds_more_than_25_files() -> None:
    """A larger folder is due for a split by topic."""
    tops = ("chalicelib", "cli", "infra", "bench")
    folders = Counter(path.parent for top in tops for path in (ROOT / top).rglob("*.py"))

    assert {str(folder.relative_to(ROOT)): files for folder, files in folders.items() if files > 25} == {}


def test_every_test_file_belongs_to_a_suite() -> None:
    """Otherwise `make test` would leave it out."""
    suites = tuple(ROOT / path for paths in SUITES.values() for path in paths)
    files = list((ROOT / "tests").rglob("test_*.py"))

    assert len(files) > 100
    assert [path for path in files if not any(path == suite or suite in path.parents for suite in suites)] == []
