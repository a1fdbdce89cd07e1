"""The additions to the `chalice` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from chalice.deploy.packager import AppOnlyDeploymentPackager
from chalice.utils import UI, OSUtils

from infra.chalice_config import ROOT
from infra.deployment import app_zip
from infra.deployment.chalice_command import merged

PYTHON = app_zip.runtime_of_this_interpreter()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small app with what Python leaves behind."""
    (tmp_path / "chalicelib" / "__pycache__").mkdir(parents=True)
    (tmp_path / "app.py").write_text("from chalicelib.one import ONE\n")
    (tmp_path / "chalicelib" / "one.py").write_text("ONE = 1\n")
    (tmp_path / "chalicelib" / "__init__.py").write_text("")
    (tmp_path / "chalicelib" / "__pycache__" / "one.cpython-311.pyc").write_bytes(b"of the developer")
    return tmp_path


def build(folder: Path, python: str = PYTHON) -> Path:
    packager = AppOnlyDeploymentPackager(OSUtils(), None, UI(), "arm64")
    return app_zip.build(packager, str(folder), python)


def content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_source_of_the_package_has_its_bytecode(checkout: Path) -> None:
    files = content(build(checkout))

    sources = {name for name in files if name.endswith(".py")}
    assert {"app.py", "chalicelib/one.py", "chalicelib/__init__.py", "chalice/app.py"} <= sources
    assert {name for name in files if name.endswith(".pyc")} == {
        str(Path(name).parent / "__pycache__" / f"{Path(name).stem}.{sys.implementation.cache_tag}.pyc") for name in sources
    }
    assert b"of the developer" not in files.values()


def test_bytecode_is_used_without_a_look_at_the_source(checkout: Path, tmp_path: Path) -> None:
    """Lambda changes the times of files, and each look costs."""
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(build(checkout)) as archive:
        archive.extractall(unpacked)
    (unpacked / "chalicelib" / "one.py").write_text("ONE = 2\n")

    script = "import chalicelib.one as one; print(one.ONE)"
    run = subprocess.run([sys.executable, "-c", script], cwd=unpacked, capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "1"


def test_building_leaves_no_bytecode_in_the_checkout(checkout: Path) -> None:
    """An edit would be ignored."""
    before = sorted(checkout.rglob("*.pyc"))

    build(checkout)

    assert sorted(checkout.rglob("*.pyc")) == before


def test_the_same_sources_give_the_same_bytes(checkout: Path) -> None:
    first = build(checkout)
    bytes_of_first = first.read_bytes()
    first.unlink()
    os.utime(checkout / "app.py", (1, 1))

    second = build(checkout)

    assert (second, second.read_bytes()) == (first, bytes_of_first)


def test_a_changed_source_gives_another_package(checkout: Path) -> None:
    first = build(checkout)
    (checkout / "chalicelib" / "one.py").write_text("ONE = 2\n")

    assert build(checkout) != first


def test_a_runtime_of_another_version_gets_no_bytecode(checkout: Path) -> None:
    assert [name for name in content(build(checkout, "python3.99")) if name.endswith(".pyc")] == []


def test_a_package_that_exists_is_used_again(checkout: Path) -> None:
    path = build(checkout)
    written = path.stat().st_mtime_ns

    assert build(checkout).stat().st_mtime_ns == written
    assert list(path.parent.glob("*.tmp")) == []


def test_a_failed_deployment_keeps_what_was_recorded_before() -> None:
    before = [{"name": "rest_api", "rest_api_id": "a", "rest_api_url": "u"}, {"name": "worker", "lambda_arn": "l"}]
    made: list[dict[str, Any]] = [{"name": "rest_api", "rest_api_id": "a"}, {"name": "new", "lambda_arn": "n"}]

    assert merged(before, made) == [*before, {"name": "new", "lambda_arn": "n"}]


FAILING_DEPLOYMENT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from chalice.config import Config
from chalice.deploy.deployer import Deployer
from chalice.deploy.deployer import ResultsRecorder
from chalice.utils import OSUtils
from infra.deployment import chalice_command

class Executor:
    resource_values = []
    def execute(self, plan):
        self.resource_values.append({"name": "rest_api", "resource_type": "rest_api", "rest_api_id": "abc"})
        raise RuntimeError("AWS refuses the next step")

class Anything:
    def __getattr__(self, name):
        return lambda *arguments: []

chalice_command.install()
nothing = Anything()
deployer = Deployer(nothing, nothing, nothing, nothing, nothing, Executor(), ResultsRecorder(OSUtils()))
deployer._validate_config = lambda config: None
config = Config.create(project_dir=sys.argv[1], chalice_stage="dev")
try:
    deployer.deploy(config, "dev")
except RuntimeError as error:
    print(error)
"""


def test_what_a_failed_deployment_made_is_recorded(tmp_path: Path) -> None:
    """Chalice records only deployments that succeed, and would make a second API the next time."""
    environment = os.environ | {"HEADRACE_STAGE": "dev", "PYTHONPATH": str(ROOT)}

    run = subprocess.run(
        [sys.executable, "-c", FAILING_DEPLOYMENT, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == "AWS refuses the next step"
    recorded = json.loads((tmp_path / ".chalice" / "deployed" / "dev.json").read_text())
    assert [resource["rest_api_id"] for resource in recorded["resources"]] == ["abc"]


NEW_EVENT_SOURCE = """
import json
from botocore.stub import Stubber
from chalice.cli.factory import CLIFactory
from chalice.awsclient import TypedAWSClient
from infra.deployment import chalice_command

chalice_command.install()
client = TypedAWSClient(CLIFactory(".").create_botocore_session())
sent = []
functions, prefix = client._client("lambda"), "arn:aws:lambda:us-east-1:1:function:"
functions.meta.events.register("before-parameter-build.lambda.CreateEventSourceMapping", lambda params, **_: sent.append(params))
with Stubber(functions) as stub:
    stub.add_response("create_event_source_mapping", {"UUID": "u" * 36})
    client.create_lambda_event_source("arn:aws:sqs:us-east-1:1:headrace-dev-low", prefix + "headrace-dev-worker_low", 10)
print(json.dumps(sent[0]))
"""


def test_chalice_creates_event_sources_with_their_settings() -> None:
    """Between its creation and a later update failed messages would be lost."""
    aws = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    environment = os.environ | aws | {"HEADRACE_STAGE": "dev", "PYTHONPATH": str(ROOT)}

    run = subprocess.run([sys.executable, "-c", NEW_EVENT_SOURCE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)

    assert json.loads(run.stdout)["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
