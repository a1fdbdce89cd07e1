"""The command line in the environments that people have: keys, addresses, proxies, login files, odd bytes."""

from __future__ import annotations

import io
import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.checks import redaction
from cli.checks.proxies import is_loopback
from cli.checks.redaction import redact
from cli.target import checked_address
from tests.unit.cli.server import JOB, KEY, Answer, FakeServer, run

SECRET = "hr_0123456789abcdefSECRET"
ELSEWHERE = "https://api.example.invalid/api"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(redaction, "_remembered", set())


def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


# Keys


@pytest.mark.parametrize("around", ["{}\r", "{}\n", "{}\r\n", " {} ", "\t{}", "\ufeff{}", "{}\u200b", "{}\xa0"])
def test_key_with_blanks_around_it_is_used_without_them(server: FakeServer, monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    monkeypatch.setenv("HEADRACE_KEY", around.format(KEY))

    assert run("whoami") == 0
    assert server.sent("GET /me")[0][2]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "key", [f"{SECRET}\xe9", f"hr\r{SECRET}", f"Bearer {SECRET}", f'"{SECRET}"', f"{SECRET}\x00x", SECRET + "\udce9x", "k" * 5_000]
)
@pytest.mark.parametrize("way", ["environment", "option", "login", "stdin"])
def test_key_that_no_header_can_carry_is_refused_unsent_and_unshown(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str, way: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was tried again"))
    if way == "environment" and "\x00" not in key:
        monkeypatch.setenv("HEADRACE_KEY", key)
    pipe_in(monkeypatch, key.encode("utf-8", "surrogateescape") + b"\n")
    login = ("login", "--api-url", server.api_url)
    arguments = {"option": ("--key", key, "whoami"), "login": (*login, "--key", key), "stdin": login}.get(way, ("whoami",))
    if way == "environment" and "\x00" in key:
        arguments = ("--key", key, "whoami")

    code = run(*arguments)

    shown = "".join(capsys.readouterr())
    assert code == 2
    assert "character" in shown or "not text in UTF-8" in shown
    assert "SECRET" not in shown
    assert "kkkkkk" not in shown
    assert server.requests == []
    assert not (tmp_path / "headrace" / "login.json").exists()


def test_login_stores_the_key_without_its_line_end(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe_in(monkeypatch, b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")

    assert run("login", "--api-url", f" {server.api_url}/ ") == 0
    stored = json.loads((tmp_path / "headrace" / "login.json").read_text())
    assert (stored["api_url"], stored["key"]) == (server.api_url, KEY)


def test_key_in_a_wrong_place_is_not_repeated(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("whoami", SECRET), ("login", SECRET), ("list", "--limit", SECRET), ("whoami", SECRET, "--json"), (SECRET,)):
        assert run(*arguments) == 2
        assert "SECRET" not in "".join(capsys.readouterr())


def test_key_that_a_server_repeats_is_not_shown(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_KEY", SECRET)
    error = {"code": "x", "message": f"Illegal header value b'Bearer {SECRET}'", "details": [{"path": SECRET, "message": SECRET}]}
    server.plan("GET /me", *[Answer(400, {"error": error})] * 2)

    assert (run("whoami"), run("whoami", "--json")) == (2, 2)
    shown = "".join(capsys.readouterr())
    assert "SECRET" not in shown
    assert "Illegal header value" in shown


def test_redaction_cuts_keys_tickets_and_credentials_out() -> None:
    text = "Bearer abc.def, hr_12345678, sk-proj-12345678, http://user:p%40w@proxy:80/, wss://x/?ticket=tk_1234&a=b"

    assert redact(text) == "Bearer *** hr_***, sk-***, http://***@proxy:80/, wss://x/?ticket=***&a=b"


# Addresses


@pytest.mark.parametrize(
    "address",
    ["localhost:4566/x", "api.example.com", "//api.example.com", "ftp://api", "https://", "https://a b/api", "https://[::1/api",
     "https://api:port", "https://api:99999", "https://api/?stage=dev", "https://api/#x", "https://user:pw@api/x", "https:api", "\x1b[2J", "http://\udce9"],
)  # fmt: skip
@pytest.mark.parametrize("source", ["--api-url", "HEADRACE_API_URL", "login"])
def test_address_that_cannot_work_is_refused_unsent(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str, source: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was tried again"))
    monkeypatch.setenv("HEADRACE_API_URL", address if source == "HEADRACE_API_URL" else "")
    arguments = {"--api-url": ("--api-url", address, "whoami"), "login": ("login", "--api-url", address, "--key", KEY)}

    assert run(*arguments.get(source, ("whoami",))) == 2
    shown = capsys.readouterr().err
    assert "pw@" not in shown
    assert "udce9" not in shown
    assert "\x1b" not in shown


def test_address_is_used_without_blanks_and_slashes() -> None:
    assert checked_address(" https://api.example.com/api// \n", "x") == "https://api.example.com/api"
    assert checked_address("  ", "x") is checked_address("", "x") is checked_address(None, "x") is None


def test_empty_variables_count_as_unset(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An unset secret of a CI system becomes an empty variable."""
    assert run("login", "--api-url", server.api_url, "--key", KEY) == 0
    for name in ("HEADRACE_API_URL", "HEADRACE_KEY", "HEADRACE_WS_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)

    assert run("--api-url", "", "--key", " ", "whoami") == 0

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    assert run("whoami") == 2
    assert "No API is known" in capsys.readouterr().err


def test_unknown_key_of_the_laptop_cloud_is_refused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--as", "root", "whoami") == 2
    assert "--as" in capsys.readouterr().err
    assert server.requests == []


# Login files and home folders


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe{",
        b"",
        b"{",
        b"[" * 100_000,
        b'{"api_url": 5}',
        b'{"api_url": "x"}',
        b'{"api_url": "https://x", "key": 7}',
        b"9" * 5_000,
        b"[]",
        b"null",
    ],
)
def test_damaged_login_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "headrace").mkdir()
    (tmp_path / "headrace" / "login.json").write_bytes(content)
    for name in ("HEADRACE_API_URL", "HEADRACE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert run("whoami") == 2
    assert "login.json" in capsys.readouterr().err


def test_damaged_login_file_disturbs_nobody_who_names_address_and_key(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "headrace").mkdir()
    (tmp_path / "headrace" / "login.json").write_bytes(b"\xff")

    assert run("whoami") == 0


def test_login_that_cannot_be_stored_is_one_sentence(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "headrace").write_text("a file where the folder would be")

    assert run("login", "--api-url", server.api_url, "--key", KEY) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_commands_run_without_a_home_and_in_a_deleted_folder(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(Path, "home", classmethod(lambda _: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert run("whoami") == 0
    assert run("login", "--api-url", server.api_url, "--key", KEY) == 2
    assert "home" in capsys.readouterr().err


# Proxies


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks_proxy_without_its_package_is_one_sentence(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, scheme: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(variable, f"{scheme}://me:password@127.0.0.1:1080")

    assert run("--api-url", ELSEWHERE, "--key", SECRET, "whoami") == 2
    shown = capsys.readouterr().err
    assert "socksio" in shown
    assert f"{variable}={scheme}://***@127.0.0.1:1080" in shown
    assert "password" not in shown
    assert "SECRET" not in shown


@pytest.mark.parametrize("proxy", ["http://me:password@127.0.0.1:9", "127.0.0.1:9", "me:password@127.0.0.1:9"])
def test_unreachable_proxy_is_named_without_its_credentials(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    assert run("--api-url", ELSEWHERE, "--key", SECRET, "whoami") == 4
    shown = capsys.readouterr().err
    assert "through the proxy HTTPS_PROXY=" in shown
    assert "127.0.0.1:9" in shown
    assert "password" not in shown


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:9", "http://", "http://[", "http://a:b", "://", "gopher:x", "http://\xe9\udce9"])
def test_proxy_that_is_no_address_is_one_sentence(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    assert run("--api-url", ELSEWHERE, "--key", SECRET, "whoami") in (2, 4)
    assert "proxy" in capsys.readouterr().err


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://127.0.0.1:9", "nonsense://", "http://["])
def test_no_proxy_is_used_for_this_machine(server: FakeServer, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)

    assert run("submit", "Hi", "--watch") == 0
    server.plan("GET /batches/batch_1/export", Answer(307, headers={"Location": f"{server.api_url}/health"}))
    assert run("batch", "export", "batch_1") == 0


@pytest.mark.parametrize(
    ("address", "here"),
    [("http://127.0.0.1:1/x", True), ("http://127.9.9.9", True), ("http://localhost.", True), ("http://a.localhost:4566", True),
     ("http://[::1]:1", True), ("http://[::ffff:127.0.0.1]", True), ("http://0.0.0.0:80", True), ("https://localhost.example.com", False),
     ("https://10.0.0.1", False), ("https://[", False), ("", False)],
)  # fmt: skip
def test_addresses_of_this_machine_are_known(address: str, here: bool) -> None:
    assert is_loopback(address) is here


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_do_not_exist_are_named_or_ignored(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "/there/is/none")

    assert run("--api-url", ELSEWHERE, "--key", SECRET, "whoami") in (2, 4)
    assert "Traceback" not in capsys.readouterr().err


def test_untrusted_certificate_is_not_tried_again(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import httpx2

    def refuse(*_: Any, **__: Any) -> None:
        error = ssl.SSLCertVerificationError("certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]") from error

    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was tried again"))
    monkeypatch.setattr(httpx2.Client, "request", refuse)

    assert run("--api-url", ELSEWHERE, "--key", SECRET, "whoami") == 4
    assert "self-signed certificate" in capsys.readouterr().err


# Bytes that are no text


def test_stdin_that_is_not_utf8_is_refused(server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for data, words in ((b"caf\xe9", "byte 0xe9 at position 4"), ("né".encode("utf-16"), "UTF-16"), (b"", "empty"), (b" \n", "empty")):
        for arguments in (("submit",), ("submit", "-"), ("estimate", "--file", "-")):
            pipe_in(monkeypatch, data)
            assert run(*arguments) == 2
            assert words in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x1f\x8b\x08\x00", "it is packed by gzip"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "it is a PDF document"),
        (b"PK\x03\x04\x14\x00\xb7word/document.xml", "it is a Word document"),
        ("hello".encode("utf-16-le"), "a NUL byte at position 2"),
        (b"a.sol" + bytes(252) + b"ustar", "a NUL byte at position 6"),
    ],
)
def test_bytes_of_no_text_are_named_and_not_proposed_for_conversion(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, data: bytes, words: str
) -> None:
    """Converted from Latin-1 as proposed, a PDF would be a prompt that costs money and means nothing."""
    (tmp_path / "file").write_bytes(data)
    for arguments in (("submit",), ("submit", "--file", str(tmp_path / "file")), ("submit", "--input", str(tmp_path / "file"))):
        pipe_in(monkeypatch, data)
        assert run(*arguments) == 2
        shown = capsys.readouterr().err
        assert words in shown
        assert "latin1" not in shown
    assert server.requests == []


def test_stdin_is_utf8_whatever_the_locale_says(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, b"\xef\xbb\xbf" + "Grüße \x01 \U0001f600".encode())

    assert run("submit") == 0
    assert server.sent("POST /jobs")[0][3] == {"prompt": "Grüße \x01 \U0001f600"}


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("submit", "caf\udce9"), "prompt"), (("submit", "x", "--tag", "caf\udce9"), "tags[0]"),
        (("submit", "x", "--metadata", "a=\udce9"), "metadata.a"), (("submit", "x", "--metadata", "\udce9=a"), "a name"),
        (("submit", "x", "-o", 'a="\\ud800"'), "options.a"), (("estimate", "x", "--model", "\udce9"), "config.model"),
        (("status", "caf\udce9"), "JOB"), (("list", "--tag", "\udce9"), "tag"), (("circuits", "open", "\udce9"), "MODEL"),
        (("failed", "retry", "\udce9"), "ids[0]"), (("update", JOB, "--priority", "\udce9"), "priority"),
    ],
)  # fmt: skip
def test_argument_that_is_not_utf8_is_refused_by_name(
    server: FakeServer, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], place: str
) -> None:
    assert run(*arguments) == 2
    assert place in capsys.readouterr().err
    assert server.requests == []


def test_file_names_with_odd_bytes(server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The content of such a file can be sent; its name cannot, where it becomes an id."""
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")
    file.write_text("x")

    assert run("submit", "--file", str(file)) == 0
    assert run("batch", "submit", str(tmp_path)) == 2
    assert "caf\\xe9.txt" in capsys.readouterr().err
    assert run("submit", "--file", str(file) + "!") == 2
    assert "caf\\xe9.txt! cannot be read: No such file or directory." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe{\x00", "UTF-16"), (b'{"a": NaN}', "NaN is no number"), (b"[" * 200_000, "nested too deeply"), (b"9" * 5_000, "digits"),
     (b'{"a": 1e999}', "input.a must be a finite number"), (b'{"a": "\\ud800"}', "input.a is not text"), (b"{,}", "line 1, column 2")],
)  # fmt: skip
def test_input_that_is_not_json_is_refused_with_its_place(
    server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "input.json"
    file.write_bytes(content)

    assert run("submit", "--input", str(file)) == 2
    assert words in capsys.readouterr().err
    assert server.requests == []


@pytest.mark.parametrize(
    "arguments",
    [("submit", "x", "--temperature", "nan"), ("submit", "x", "--delay", "inf"), ("update", JOB, "--delay", "inf")],
)
def test_number_that_json_does_not_have_is_refused(
    server: FakeServer, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 2
    assert "must be a finite number" in capsys.readouterr().err
    assert server.requests == []
