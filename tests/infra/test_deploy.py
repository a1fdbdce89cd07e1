"""The order of the steps of a deployment, and what its errors say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra import deploy
from infra.cloud import Cloud
from infra.deploy import Deployment, DeploymentFailed
from infra.deployment.event_sources import NotSettled
from infra.deployment.record import StageLocked

OUTPUTS = {"ContentBucketName": "bucket", "JobsStreamArn": "stream"}


class Steps:
    """Records the steps instead of doing them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, exists: bool) -> None:
        self.done: list[str] = []
        for name in ("ensure_openai_secret", "set_event_sources", "allow_loops", "set_api_log_retention", "set_gateway_responses"):
            monkeypatch.setattr(deploy, name, self._step(name))
        for name in ("set_throttles", "run_chalice", "publish_endpoints", "empty_bucket", "delete_stack"):
            monkeypatch.setattr(deploy, name, self._step(name))
        monkeypatch.setattr(deploy, "deploy_stack", self._step("deploy_stack", OUTPUTS))
        monkeypatch.setattr(deploy, "deployed", lambda _: Deployment("rest", "https://rest", "socket", "wss://socket"))
        monkeypatch.setattr(deploy, "stack_outputs_or_none", lambda _: OUTPUTS if exists else None)
        monkeypatch.setattr(deploy, "stack_outputs", lambda _: OUTPUTS)
        monkeypatch.setattr(deploy.chalice_config, "write", list)
        monkeypatch.setattr(deploy.layer, "build", lambda _: None)
        monkeypatch.setattr(deploy.record, "exclusive", self._around("lock"))
        monkeypatch.setattr(deploy.record, "shared_record", self._around("record"))

    def _step(self, name: str, result: Any = None) -> Any:
        def step(*arguments: Any) -> Any:
            self.done.append(" ".join([name, *(one for one in arguments[1:2] if name == "run_chalice")]))
            return result

        return step

    def _around(self, name: str) -> Any:
        @contextmanager
        def around(cloud: Cloud, bucket: str) -> Iterator[None]:
            self.done.append(f"take {name}")
            yield
            self.done.append(f"give {name}")

        return around

    def first(self, step: str) -> int:
        return self.done.index(step)


def test_existing_event_sources_are_changed_before_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event source that was not told takes an answer with failed messages for success."""
    steps = Steps(monkeypatch, exists=True)

    deploy.deploy(Cloud("dev"))

    assert steps.first("set_event_sources") < steps.first("run_chalice deploy")


def test_nothing_is_published_before_everything_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, exists=False)

    deploy.deploy(Cloud("dev"))

    after = steps.done[steps.first("run_chalice deploy") + 1 : steps.first("publish_endpoints")]
    assert after == ["give record", "set_event_sources", "allow_loops", "set_api_log_retention", "set_gateway_responses", "set_throttles"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_stage_is_changed_only_under_its_lock(monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    """The bucket holds the lock, so the stack of a new stage has to be created before."""
    steps = Steps(monkeypatch, exists=exists)

    deploy.deploy(Cloud("dev"))

    assert steps.done[: steps.first("take lock")] == ([] if exists else ["deploy_stack"])
    assert steps.done[steps.first("take lock") + 1] == "deploy_stack"
    assert steps.done[-1] == "give lock"
    assert steps.first("take record") < steps.first("run_chalice deploy") < steps.first("give record")


def test_a_stage_is_removed_under_its_lock_and_with_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, exists=True)

    deploy.destroy(Cloud("dev"))

    assert steps.done == [
        "take lock",
        "take record",
        "run_chalice delete",
        "give record",
        "give lock",
        "empty_bucket",
        "delete_stack",
        "delete_stack",
    ]


@pytest.mark.parametrize("error", [StageLocked("ann@laptop deploys"), NotSettled("not ready")])
def test_errors_of_the_steps_are_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    Steps(monkeypatch, exists=True)

    def fail(_: Cloud) -> None:
        raise error

    monkeypatch.setattr(deploy, "set_event_sources", fail)

    with pytest.raises(DeploymentFailed, match=str(error)):
        deploy.deploy(Cloud("dev"))
