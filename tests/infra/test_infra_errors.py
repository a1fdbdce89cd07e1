"""The commands of the Makefile: one sentence instead of a traceback, and no influence of the shell's proxies on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from chalicelib.domain.units import DAY_MS, rfc3339
from infra import commands, deploy
from infra.cloud import Cloud
from infra.error_handling import sentence, without_tracebacks
from infra.keys import MAX_DAYS
from infra.local import stack_file, up
from infra.local.emulators import _environment
from infra.local.proxies import left_out, proxies_for_functions
from tests.kit.paths import ROOT

TRACEBACK = """Deploying
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    main()
    ^^^^^^
ValueError: inner

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "y.py", line 2, in <module>
KeyError: 'outer'
done
"""


# Proxies


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "socks5h://a:b@127.0.0.1:1080", "SOCKS4://x", " socks://x"])
def test_functions_get_no_socks_proxy(proxies: pytest.MonkeyPatch, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their HTTP client cannot speak it, and would not even start for addresses that need no proxy."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        proxies.setenv(name, value)

    environment = _environment()

    assert not {"HTTPS_PROXY", "ALL_PROXY", "http_proxy"} & set(environment)
    said = left_out(os.environ)
    assert said is not None
    assert "a:b" not in said


@pytest.mark.parametrize(
    ("value", "passed"), [("http://proxy:3128", "http://proxy:3128"), ("proxy:3128", "http://proxy:3128"), ("", None), (" ", None)]
)
def test_functions_get_http_proxies_but_not_for_this_machine(proxies: pytest.MonkeyPatch, value: str, passed: str | None) -> None:
    proxies.setenv("HTTPS_PROXY", value)
    proxies.setenv("NO_PROXY", "intranet.example.com")

    environment = proxies_for_functions(os.environ)

    assert environment.get("HTTPS_PROXY") == passed
    assert environment["NO_PROXY"] == environment["no_proxy"] == "127.0.0.1,localhost,::1,intranet.example.com"
    assert left_out(os.environ) is None


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:1080", "nonsense://["])
def test_emulator_is_reached_whatever_proxies_the_shell_has(proxies: pytest.MonkeyPatch, proxy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
            proxies.setenv(name, proxy)
        client = Cloud("local", f"http://127.0.0.1:{listener.getsockname()[1]}").client("sqs")

        assert client.meta.config.proxies == {}


def test_doctor_and_deploy_say_that_the_proxy_does_not_answer(proxies: pytest.MonkeyPatch) -> None:
    env = {**os.environ, "HTTPS_PROXY": "http://me:password@127.0.0.1:9", "AWS_DEFAULT_REGION": "eu-central-1"}
    env |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    for command, words in (("doctor", "HTTPS_PROXY"), ("destroy", "AWS cannot be used")):
        done = subprocess.run(
            [sys.executable, "-m", "infra", command, "--stage", "dev"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "password" not in done.stdout + done.stderr


# Ctrl-C

INTERRUPTED_IMPORT = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
runpy.run_module(sys.argv[2], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "command"),
    [("typer", "infra"), ("infra.deploy", "infra"), ("infra.local.up", "infra"), ("boto3", "infra"), ("typer", "cli.demo")],
)
def test_ctrl_c_while_modules_are_imported_leaves_no_traceback(module: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, command], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# Sentences


def test_tracebacks_of_tools_are_left_out_and_their_errors_stay() -> None:
    assert [line for line in without_tracebacks(TRACEBACK.splitlines()) if line] == [
        "Deploying",
        "ValueError: inner",
        "KeyError: 'outer'",
        "done",
    ]


def test_failed_deployment_shows_no_traceback_of_chalice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    program = f"import sys; sys.stdout.write({TRACEBACK!r}); sys.stdout.buffer.write(b'\\xff'); sys.exit(1)"
    monkeypatch.setattr(deploy, "_chalice", lambda _: [sys.executable, "-c", program])

    with pytest.raises(deploy.DeploymentFailed, match="KeyError: 'outer'") as failed:
        deploy.run_chalice(Cloud("local", "http://127.0.0.1:1"), "deploy", {})

    assert "Traceback" not in str(failed.value) + capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        ClientError({"Error": {"Code": "X", "Message": "m sk-secret12345678"}}, "Call"),
        OSError(28, "No space left on device"),
        subprocess.CalledProcessError(1, ["pip", "install"]),
        KeyError("x"),
        ValueError("a\nb"),
        RuntimeError(f"ERROR: Exception:\n{TRACEBACK}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_is_one_sentence(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "app", lambda **_: (_ for _ in ()).throw(error))

    with pytest.raises(SystemExit) as ended:
        commands.run()

    said = str(ended.value.code)
    assert said.startswith("Failed: ")
    assert "\n" not in said
    assert "Traceback" not in said
    assert "secret1234" not in said


def test_secrets_of_the_environment_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")

    assert "wJalr" not in sentence(RuntimeError("signed with wJalrXUtnFEMI/K7MDENG"))


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["deploy", "--stage", "../x"], {}),
        (["keys", "make", "--stage", "staging", "--tenant", "t"], {}),
        (["keys", "make", "--stage", "local", "--tenant", "caf\udce9"], {}),
        (["keys", "make", "--stage", "local", "--tenant", "t", "--days", "9" * 12], {}),
        (["up"], {"HEADRACE_LOCAL_WORKERS": "many"}),
        (["up"], {"OPENAI_API_KEY": "sk-secret12345678\xe9"}),
        (["up"], {"OPENAI_API_KEY": "sk-a b"}),
        (["openai-key", "--stage", "local"], {"OPENAI_API_KEY": "sk-secret12345678\r\nx"}),
    ],
)
def test_wrong_argument_or_variable_is_refused_before_anything_is_done(
    arguments: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(stack_file, "FILE", tmp_path / "stack.json")
    monkeypatch.setattr(stack_file, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(up, "_start", lambda: pytest.fail("it was started"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["infra", *arguments])

    with pytest.raises(SystemExit) as ended:
        commands.run()

    assert ended.value.code == 2
    assert "secret1234" not in "".join(capsys.readouterr())


def test_last_day_of_a_key_can_be_written() -> None:
    assert rfc3339(1_800_000_000_000 + MAX_DAYS * DAY_MS)


@pytest.mark.parametrize(
    "content", [b"\xff", b"[" * 100_000, b"[]", b'{"pids": 5}', b'{"pids": [{"pid": "x"}, 3, {"name": "a", "pid": -1, "started_at": 1}]}']
)
def test_damaged_stack_file_names_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    monkeypatch.setattr(stack_file, "FILE", tmp_path / "stack.json")
    stack_file.FILE.write_bytes(content)

    assert stack_file.processes(stack_file.read() or {}) == []
