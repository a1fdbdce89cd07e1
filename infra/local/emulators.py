"""The two emulators: ministack for AWS and llmock for OpenAI.

Both listen on 127.0.0.1 only and write only below `.local/`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.chalice_config import ROOT
from infra.cloud import LOCAL_REGION
from infra.local.processes import Started, start
from infra.local.proxies import proxies_for_functions
from infra.local.stack_file import FOLDER, log_file

HOST = "127.0.0.1"
PYTHON = ROOT / ".venv-cloud" / "bin" / "python"
START_SECONDS = 40.0
SCRATCH = tuple(FOLDER / name for name in ("tmp", "state", "s3"))  # the files of the emulators

# Variables that the functions may need from the environment of the user, besides those of proxies. No
# other is passed on, above all no credentials.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR")


class NotStarted(RuntimeError):
    """An emulator exited or did not become healthy in time; its log says why."""


@dataclass(frozen=True)
class Emulator:
    """One emulator, with its command and health check."""

    name: str
    port: int
    command: list[str]
    settings: dict[str, str]
    health_path: str

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> Started:
        SCRATCH[0].mkdir(parents=True, exist_ok=True)
        log = log_file(self.name)
        log.write_bytes(b"")
        return start(self.name, self.command, _environment() | self.settings, FOLDER, log)

    def healthy(self) -> bool:
        return answers(self.url + self.health_path)

    def wait_until_healthy(self, process: Started) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy():
            if not process.alive() or time.monotonic() > deadline:
                raise NotStarted(f"{self.name} did not start.")
            time.sleep(0.1)


def ministack(port: int) -> Emulator:
    """The AWS emulator. It enforces IAM, so that a missing permission shows before production.

    Docker is made unreachable: it is not needed, and ministack removes containers at its start that
    it takes for its own.
    """
    settings = {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "AUTH": "true",
        "MINISTACK_REGION": LOCAL_REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "STATE_DIR": str(SCRATCH[1]),
        "S3_DATA_DIR": str(SCRATCH[2]),
        "DOCKER_HOST": f"unix://{FOLDER}/no-docker.sock",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
    }
    return Emulator("ministack", port, [str(PYTHON), str(Path(__file__).with_name("run_ministack.py"))], settings, "/_ministack/ready")


def llmock(port: int) -> Emulator:
    """The OpenAI mock.

    It streams about 50 tokens per second and echoes the prompt, so that answers differ.
    """
    command = [str(PYTHON), "-c", "from llmock.cli import app; app()", "serve", "--host", HOST, "--port", str(port)]
    pace = ["--stream-chunk-delay-ms", "20", "--response-style", "echo", "--log-level", "warning"]
    return Emulator("llmock", port, command + pace, {}, "/health")


@contextmanager
def port_lock() -> Iterator[None]:
    """Let one checkout at a time choose ports, from the choice until its emulators listen.

    Otherwise two find the same port free, and the one that comes late takes the other's emulator for its own.
    """
    path = Path(tempfile.gettempdir()) / f"headrace-ports-{os.getuid()}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the file or the process
        yield


def free_port(preferred: int) -> int:
    """The preferred port if it is free, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            return int(candidate.getsockname()[1])
    raise NotStarted("No free port.")


def answers(url: str) -> bool:
    """Whether a GET answers with a status below 400."""
    return failure(url) is None


def failure(url: str) -> str | None:
    """Why a GET fails: the body of the error answer or the network error; None if it succeeds."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {"HOME": str(FOLDER), "TMPDIR": str(SCRATCH[0]), "PYTHONUNBUFFERED": "1"}
    return passed_on | proxies_for_functions(os.environ) | own
