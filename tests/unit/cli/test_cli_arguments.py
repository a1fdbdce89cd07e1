"""How the command line reads values and prompts, and what it says about arguments that it does not understand."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import Exit
from cli.request import parse_pairs
from tests.kit.paths import ROOT
from tests.unit.cli.server import JOB, Answer, FakeServer, run

# Values


@pytest.mark.parametrize(
    "typed",
    ["12e4567", "1.10", "1234e5", "NaN", "Infinity", "-Infinity", "007", "1_000", "1e5", "1.0", "-0", "0.10", "1E3", "12345678901234567890",
     " 5", "5 ", "9" * 5_000, "[" * 100_000, "[NaN]", "[1e999]", "0x10", "+1", ".5", "5.", "True", "hr", "", "a=b"],
)  # fmt: skip
def test_metadata_that_only_looks_like_a_number_stays_as_typed(typed: str) -> None:
    assert parse_pairs([f"x={typed}"], "--metadata", as_typed=True) == {"x": typed}


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("3", 3),
        ("-7", -7),
        ("0", 0),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_metadata_that_is_json_is_decoded(typed: str, value: Any) -> None:
    found = parse_pairs([f"x={typed}"], "--metadata", as_typed=True)["x"]

    assert (found, type(found)) == (value, type(value))


@given(st.text(alphabet="0123456789.eE+-_ N", min_size=1, max_size=12))
def test_metadata_prints_as_it_was_typed(typed: str) -> None:
    value = parse_pairs([f"x={typed}"], "--metadata", as_typed=True)["x"]

    assert (value if isinstance(value, str) else json.dumps(value)) == typed


@pytest.mark.parametrize(
    ("typed", "value"), [("1e-3", 0.001), ("1e5", 1e5), ("1.10", 1.1), ("0.7", 0.7), ("3", 3), ("9" * 30, int("9" * 30))]
)
def test_option_may_be_any_number(typed: str, value: Any) -> None:
    assert parse_pairs([f"x={typed}"], "--option") == {"x": value}


@pytest.mark.parametrize("typed", ["12e4567", "NaN", "-Infinity", "1e-999", "0.12345678901234567890123", "1e" + "9" * 30])
def test_option_is_text_where_a_number_would_be_another(typed: str) -> None:
    assert parse_pairs([f"x={typed}"], "--option") == {"x": typed}


def test_name_that_is_given_twice_is_refused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("submit", "x", "--metadata", "a=1", "--metadata", "a=2") == 2
    assert "a is given twice" in capsys.readouterr().err


def test_hash_and_version_reach_the_api_as_typed(server: FakeServer) -> None:
    assert run("submit", "hi", "--metadata", "commit=12e4567", "--metadata", "version=1.10", "--metadata", "x=NaN") == 0
    assert server.sent("POST /jobs")[0][3]["metadata"] == {"commit": "12e4567", "version": "1.10", "x": "NaN"}


def documented_values() -> list[tuple[str, str, str]]:
    """The values of the table in docs/cli.md, each with what it becomes as metadata and as an option."""
    rows = [line.split("|")[1:4] for line in (ROOT / "docs" / "cli.md").read_text().splitlines() if line.startswith("| `")]
    return [(typed, metadata.strip(), option.strip()) for cell, metadata, option in rows for typed in re.findall(r"`([^`]+=[^`]*)`", cell)]


@pytest.mark.parametrize(("typed", "metadata", "option"), documented_values())
def test_values_become_what_the_docs_say(typed: str, metadata: str, option: str) -> None:
    text = typed.partition("=")[2]
    for as_typed, kind in ((True, metadata), (False, option)):
        [value] = parse_pairs([typed], "--option", as_typed=as_typed).values()
        expected = {"a number": (int, float), "text, as typed": str, "text": str, "as in JSON": object}[kind]
        assert isinstance(value, expected)
        assert value == text if kind == "text, as typed" else value == json.loads(text)


def test_exit_codes_are_those_of_the_docs() -> None:
    documented = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)

    assert [int(code) for code in documented] == sorted(Exit)


# Prompts


@pytest.mark.parametrize(
    "prompt",
    ["- summarise this", "-- two dashes", "--- a\nb: c\n---", "-5 degrees", "-summarise this", "--summarise this", "-\ttab", "-a b=c"],
)
@pytest.mark.parametrize("command", ["submit", "estimate"])
def test_prompt_may_begin_with_a_dash(server: FakeServer, prompt: str, command: str) -> None:
    for arguments in (
        [command, prompt],
        [command, prompt, "--model", "m"],
        [command, "--model", "m", prompt],
        [command, "-m", "m", "--", prompt],
    ):
        assert run(*arguments) == 0
    bodies = [request[3] for request in server.requests]
    assert [body["prompt"] for body in bodies] == [prompt] * 4
    assert [body.get("config", {}).get("model") for body in bodies] == [None, "m", "m", "m"]


def test_value_of_an_option_may_begin_with_a_dash(server: FakeServer) -> None:
    assert run("submit", "--system-prompt", "- be brief", "--tag=a b", "-otext=two words", "--", "-x") == 0
    body = server.sent("POST /jobs")[0][3]
    assert body == {"prompt": "-x", "tags": ["a b"], "options": {"text": "two words"}, "config": {"system_prompt": "- be brief"}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modle", "gpt-5", "hi"], "No such option"), (["--modle=gpt 5", "hi"], "No such option"), (["-5"], "submit -- "),
        (["hi", "--model"], "requires an argument"), (["- a", "--model"], "requires an argument"), (["two", "words"], "in quotes"),
        (["- a", "- b"], "unexpected extra"), (["hi", "--timeout", "soon"], "--timeout"), ([""], "The prompt is empty"),
    ],
)  # fmt: skip
def test_wrong_option_is_no_prompt(server: FakeServer, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert run("submit", *arguments) == 2
    assert words in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize("number", range(40))
def test_order_of_options_makes_no_difference_to_a_dashed_prompt(server: FakeServer, number: int) -> None:
    parts = [["- a prompt"], ["--model", "- m"], ["--durable"], ["-p", "low"], ["--tag", "-t x"]]
    random.Random(number).shuffle(parts)

    assert run("submit", *(argument for part in parts for argument in part)) == 0
    body = server.sent("POST /jobs")[0][3]
    assert body == {"prompt": "- a prompt", "tags": ["-t x"], "config": {"model": "- m", "priority": "low", "durable": True}}


# Ids and file names


@pytest.mark.parametrize("job", ["a/b", "..", "../me", "x?y", "x#y", "a b", "job_\n", "", "%2e", "j" * 300, "\x1b[2J"])
@pytest.mark.parametrize("command", [["status"], ["watch"], ["failed", "delete"], ["bulk"], ["batch", "export"], ["deliveries"], ["graph"]])
def test_id_that_would_be_another_address_is_refused(
    server: FakeServer, capsys: pytest.CaptureFixture[str], command: list[str], job: str
) -> None:
    assert run(*command, job) == 2
    assert "\x1b" not in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize("name", ["..", "../../x", ".bashrc", "/etc/passwd", "a\x1b[2Jb", "-rf", " . ", "x" * 300, "con\\x"])
def test_name_that_the_server_chooses_stays_in_this_folder(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    server.plan(f"GET /jobs/{JOB}/download", Answer(body="data", headers={"Content-Disposition": f'attachment; filename="{name}"'}))

    assert run("download", JOB) == 0
    [file] = [path for path in tmp_path.iterdir() if path.is_file()]
    assert file.read_text() == "data"
    assert not file.name.startswith((".", "-"))
    assert "\x1b" not in file.name


def test_name_that_the_server_chooses_overwrites_nothing(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.csv").write_text("mine")
    server.plan(f"GET /jobs/{JOB}/download", *[Answer(body="new", headers={"Content-Disposition": 'x; filename="out.csv"'})] * 2)

    assert run("download", JOB) == 2
    assert (tmp_path / "out.csv").read_text() == "mine"
    assert run("download", JOB, "-o", "out.csv") == 0
    assert (tmp_path / "out.csv").read_text() == "new"


@pytest.mark.parametrize("command", [["download", JOB], ["batch", "export", "batch_1"]])
@pytest.mark.parametrize("target", [".", "/", "/there/is/none", "/proc/none", "x" * 300])
def test_file_that_cannot_be_written_is_one_sentence(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    server.plan(f"GET /jobs/{JOB}/download", Answer(body="data"))
    server.plan("GET /batches/batch_1/export", Answer(body="data"))

    assert run(*command, "-o", target) == 2
    assert "Errno" not in capsys.readouterr().err


def test_device_is_written_to_and_not_replaced(server: FakeServer, tmp_path: Path) -> None:
    server.plan("GET /batches/batch_1/export", Answer(body="data"))

    assert run("batch", "export", "batch_1", "-o", "/dev/null") == 0
    assert Path("/dev/null").is_char_device()
