"""`make up`: deploy the product on this machine, with the same code that deploys it to AWS."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra import layer
from infra.cloud import LOCAL_REGION, Cloud
from infra.deploy import deploy
from infra.error_handling import without_tracebacks
from infra.local import stack_file
from infra.local.down import stop
from infra.local.emulators import Emulator, answers, failure, free_port, llmock, ministack, port_lock
from infra.local.fingerprint import fingerprint
from infra.local.processes import Started
from infra.local.proxies import left_out
from infra.local.tokens import make_tokens
from infra.local.workers import api_log, limit_workers, max_concurrency, restart_workers
from infra.openai_address import check_api
from infra.openai_key import checked_openai_key, put_openai_credentials, wake_waiting_jobs

MINISTACK_PORT, LLMOCK_PORT = 4566, 4577  # used if they are free
HEALTH_SECONDS = 30.0
LOG_LINES = 30

Stack = dict[str, Any]  # the content of stack.json


class NotHealthy(RuntimeError):
    """The product was deployed but its API is not healthy."""


def up() -> Stack:
    """Start the laptop cloud or update the running one.

    Raises:
        AddressRefused: there is no Responses API at `OPENAI_BASE_URL`.
    """
    max_concurrency(os.environ)  # what is wrong in the environment is refused before anything is started
    own = openai_credentials("")
    if os.environ.get("OPENAI_API_KEY") and (unchecked := check_api(own.get("base_url"), own["api_key"])):
        print(f"  {unchecked}", flush=True)
    if sentence := left_out(os.environ):
        print(f"  {sentence}", flush=True)
    running = stack_file.read()
    if running is None or not _is_healthy(running):
        stop()  # remove the remains of an earlier one
        return _start()
    if running["code"] != fingerprint():
        return _deploy(running)
    cloud = Cloud("local", running["aws_endpoint"])
    if put_openai_credentials(cloud, openai_credentials(running["openai_url"])):
        restart_workers(cloud)
        wake_waiting_jobs(cloud)
    return running


def _start() -> Stack:
    emulators: list[Emulator] = []
    try:
        with _step("starting the emulators"), port_lock():
            emulators += [ministack(free_port(MINISTACK_PORT)), llmock(free_port(LLMOCK_PORT))]
            processes = _start_emulators(emulators)
        aws, openai = emulators
        stack = {"stage": "local", "region": LOCAL_REGION, "aws_endpoint": aws.url, "openai_url": openai.url}
        return _deploy(stack | {"pids": stack_file.describe(processes)})
    except BaseException as error:
        if isinstance(error, RuntimeError):  # the errors of emulators and deployments; others have their reason elsewhere
            _show_logs(emulators)
        stop()
        raise


def _start_emulators(emulators: list[Emulator]) -> list[Started]:
    """Start the emulators, which takes seconds, and build the layer meanwhile."""
    processes: list[Started] = []
    for emulator in emulators:
        processes.append(emulator.start())
        stack_file.write({"pids": stack_file.describe(processes)})  # so that `down` finds them even if this command fails
    layer.build("local")
    for emulator, process in zip(emulators, processes, strict=True):
        emulator.wait_until_healthy(process)
    return processes


def _deploy(stack: Stack) -> Stack:
    code, cloud = fingerprint(), Cloud("local", stack["aws_endpoint"])
    put_openai_credentials(cloud, openai_credentials(stack["openai_url"]))
    with _step("deploying"):
        deployment = deploy(cloud)
        limit_workers(cloud)
    stack |= {"api_url": deployment.rest_url, "ws_url": deployment.websocket_url, "dashboard_url": None}
    with _step("waiting for the API"):
        _wait_until_healthy(cloud, stack["api_url"])
    stack["code"] = code
    stack["tokens"] = stack.get("tokens") or make_tokens(cloud)
    stack_file.write(stack)
    return stack


def openai_credentials(llmock_url: str) -> dict[str, str]:
    """Credentials for OpenAI if the environment has a key, else for llmock."""
    if key := os.environ.get("OPENAI_API_KEY", "").strip():
        own = {"api_key": checked_openai_key(key), "base_url": os.environ.get("OPENAI_BASE_URL", "")}
        return {name: value for name, value in own.items() if value}
    return {"api_key": "sk-llmock", "base_url": f"{llmock_url}/v1"}


def _is_healthy(stack: Stack) -> bool:
    processes = stack_file.processes(stack)
    complete = "tokens" in stack and all(process.alive() for process in processes)
    return complete and answers(stack["aws_endpoint"] + "/_ministack/health")


def _wait_until_healthy(cloud: Cloud, api_url: str) -> None:
    deadline = time.monotonic() + HEALTH_SECONDS
    while problem := failure(f"{api_url}/health"):
        if time.monotonic() > deadline:
            raise NotHealthy("\n".join([*without_tracebacks(api_log(cloud, LOG_LINES)), f"{api_url}/health answers: {problem}"]))
        time.sleep(0.5)


def _show_logs(emulators: list[Emulator]) -> None:
    for emulator in emulators:
        log = stack_file.log_file(emulator.name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        print("\n".join([f"--- the end of {log}", *list(without_tracebacks(lines))[-LOG_LINES:]]), flush=True)


@contextmanager
def _step(name: str) -> Iterator[None]:
    print(f"  {name} ...", flush=True)
    started_at = time.monotonic()
    yield
    print(f"  {name}: {time.monotonic() - started_at:.1f} s", flush=True)
