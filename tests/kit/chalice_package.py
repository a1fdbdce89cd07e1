"""What `chalice package` makes of the project, as CloudFormation: without packages, and with the names that `chalice deploy` gives.

The module is also a program, because Chalice imports `app.py` for one stage:
`python -m tests.kit.chalice_package STAGE FOLDER` writes the template and says nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from chalice.cli.factory import CLIFactory
from chalice.config import Config
from chalice.deploy import models
from chalice.deploy.appgraph import ApplicationGraphBuilder, DependencyBuilder
from chalice.deploy.packager import AppOnlyDeploymentPackager, LayerDeploymentPackager
from chalice.package import create_app_packager
from chalice.utils import to_cfn_resource_name

from infra.chalice_config import ROOT

Template = dict[str, Any]
LOG_GROUP_OF_API = "ApiHandlerLogGroup"


def packaged(stages: Iterable[str], folder: Path) -> dict[str, Template]:
    """The template of each stage."""
    stages = list(stages)
    with ThreadPoolExecutor() as threads:
        return dict(zip(stages, threads.map(partial(_in_a_process, folder), stages), strict=True))


def _in_a_process(folder: Path, stage: str) -> Template:
    environment = os.environ | {"HEADRACE_STAGE": stage, "PYTHONPATH": str(ROOT), "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", __name__, stage, str(folder / stage)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    template: Template = json.loads((folder / stage / "sam.json").read_text())
    return template


def main(stage: str, folder: Path) -> None:
    folder.mkdir()
    empty, merge = folder / "empty.zip", folder / "merge.json"
    zipfile.ZipFile(empty, "w").close()
    factory = CLIFactory(str(ROOT))
    config = factory.create_config_obj(stage)
    merge.write_text(json.dumps(_names(config, stage)))

    def package(*_: object) -> str:
        return str(empty)

    with (
        patch.object(AppOnlyDeploymentPackager, "create_deployment_package", package),
        patch.object(LayerDeploymentPackager, "create_deployment_package", package),
    ):
        packager = create_app_packager(config, factory.create_package_options(), merge_template=str(merge))
        packager.package_app(config, str(folder), stage)


def _names(config: Config, stage: str) -> Template:
    """Names of functions, roles, rules and log groups: `chalice package` leaves them to CloudFormation."""
    resources: Template = {}
    application = ApplicationGraphBuilder().build(config, stage)
    for model in DependencyBuilder().build_dependencies(application):
        if isinstance(model, models.LambdaFunction):
            name = "APIHandler" if model.resource_name == "api_handler" else to_cfn_resource_name(model.resource_name)
            resources.setdefault(name, {}).setdefault("Properties", {})["FunctionName"] = model.function_name
            role: Any = model.role
            resources[to_cfn_resource_name(role.resource_name)] = {"Properties": {"RoleName": role.role_name}}
        elif isinstance(model, models.ScheduledEvent):
            function = resources[to_cfn_resource_name(model.lambda_function.resource_name)]["Properties"]
            function["Events"] = {to_cfn_resource_name(model.resource_name): {"Properties": {"Name": model.rule_name}}}
    # Chalice names a function here that it calls differently
    resources[LOG_GROUP_OF_API] = {"Properties": {"LogGroupName": {"Fn::Sub": "/aws/lambda/${APIHandler}"}}}
    return {"Resources": resources}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
