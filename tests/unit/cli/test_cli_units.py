"""Units of the command line: targets, line wrapping, formatting, parsing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import output
from cli.errors import UsageError
from cli.line_wrapper import LineWrapper
from cli.request import parse_pairs
from cli.screen import progress_bar, status_parts
from cli.target import Target, find_target, write_login
from cli.transports.sse import Event, parse_events


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Environment variables that point to an empty configuration folder."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def make_stack(folder: Path) -> None:
    stack = {"api_url": "http://local/api/", "ws_url": "ws://local", "tokens": {"user": "hr_u", "admin": "hr_a"}}
    (folder / ".local").mkdir()
    (folder / ".local" / "stack.json").write_text(json.dumps(stack))


def test_stack_file_is_found_from_a_subfolder(tmp_path: Path, home: dict[str, str]) -> None:
    make_stack(tmp_path)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    assert find_target(None, None, env=home, start=below) == Target("http://local/api", "hr_u", "ws://local")
    assert find_target(None, None, "admin", home, below).key == "hr_a"


def test_environment_overrides_login_and_login_overrides_stack(tmp_path: Path, home: dict[str, str]) -> None:
    make_stack(tmp_path)
    write_login(Target("https://far/api", "hr_far"), home)

    assert find_target(None, None, env=home, start=tmp_path) == Target("https://far/api", "hr_far")
    env = {**home, "HEADRACE_API_URL": "http://env/api", "HEADRACE_KEY": "hr_env"}
    assert find_target(None, None, env=env, start=tmp_path) == Target("http://env/api", "hr_env")
    assert find_target("http://option/api", "hr_o", env=env, start=tmp_path) == Target("http://option/api", "hr_o")


def test_stack_key_is_not_sent_to_another_address(tmp_path: Path, home: dict[str, str]) -> None:
    make_stack(tmp_path)

    assert find_target("https://elsewhere/api", None, env=home, start=tmp_path).key is None
    assert find_target("http://local/api", None, env=home, start=tmp_path).key == "hr_u"


def test_environment_key_is_not_sent_to_another_address_from_an_option(tmp_path: Path, home: dict[str, str]) -> None:
    env = {**home, "HEADRACE_API_URL": "https://mine/api", "HEADRACE_KEY": "hr_mine"}

    assert find_target("https://elsewhere/api", None, env=env, start=tmp_path).key is None
    assert find_target("https://mine/api", None, env=env, start=tmp_path).key == "hr_mine"


def test_unknown_api_is_a_usage_error(tmp_path: Path, home: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="No API"):
        find_target(None, None, env=home, start=tmp_path)


@given(st.lists(st.text(alphabet="ab \n\U0001f600\u4e2d", max_size=30), max_size=10))
def test_wrapped_lines_fit_and_lose_no_text(pieces: list[str]) -> None:
    from rich.cells import cell_len

    wrapper = LineWrapper(12)

    lines = [line for piece in pieces for line in wrapper.feed(piece)] + wrapper.flush()

    assert all(cell_len(line) <= 12 for line in lines)
    assert "".join(lines) == "".join(pieces).replace("\n", "")


def test_lines_break_at_spaces() -> None:
    wrapper = LineWrapper(10)

    assert wrapper.feed("alpha beta gamma") == ["alpha "]
    assert wrapper.flush() == ["beta gamma"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, None),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (12, "12 s"),
        (200, "3 m 20 s"),
        (7500, "2 h 5 m"),
        (356_400, "4 d 3 h"),
    ],
)
def test_duration_is_formatted_by_size(seconds: float | None, shown: str | None) -> None:
    assert output.duration(seconds) == shown


@pytest.mark.parametrize(("amount", "shown"), [(None, None), ("0.000000", "$0.0000"), ("0.0012", "$0.0012"), ("0.000012", "$0.000012")])
def test_money_is_formatted_with_visible_digits(amount: str | None, shown: str | None) -> None:
    assert output.money(amount) == shown


def test_ago_formats_the_time_since_a_moment() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert output.ago((now - timedelta(seconds=200)).isoformat(), now) == "3 m 20 s ago"
    assert output.ago(None) == ""


def test_clean_replaces_control_characters() -> None:
    assert output.clean("a\x1b[2Jb\x07\x9b\tc\n\U0001f600") == "a\ufffd[2Jb\ufffd\ufffd    c\n\U0001f600"


def test_pairs_decode_json_values() -> None:
    assert parse_pairs(["n=3", "s=three", "l=[1]", 'q="3"', "e="], "-o") == {"n": 3, "s": "three", "l": [1], "q": "3", "e": ""}
    with pytest.raises(UsageError, match="name=value"):
        parse_pairs(["nothing"], "-o")


def test_sse_parser_drops_a_truncated_event() -> None:
    body = 'retry: 200\n\n: nothing new\n\nid: 1:5\nevent: tokens\ndata: {"a": 1}\n\nid: 1:9\ndata: {"b"'

    assert list(parse_events(body)) == [Event(retry=0.2), Event("1:5", '{"a": 1}')]


def test_status_line_and_bar_show_known_fields_only() -> None:
    state = {"status": "processing", "stage": "scan", "tokens_received": 12, "tokens_per_second": 48.2, "cost_so_far": "0.0012"}

    assert status_parts(state, "high finding", 3.0, "websocket") == [
        "processing", "scan", "high finding", "12 tokens", "48/s", "$0.0012", "3.0 s", "websocket",
    ]  # fmt: skip
    assert status_parts({}, None, 0.0, "") == ["connecting", "0.0 s"]
    assert progress_bar({"progress_percentage": 50}, 26).plain == "#" * 10 + "-" * 10 + "  50%"
