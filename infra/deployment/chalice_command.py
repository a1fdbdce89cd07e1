"""The `chalice` command, with three additions.

* Event sources are created with all their settings, so that none works without them for a while.
* A deployment that fails half-way is recorded as far as it came. Chalice records only those that
  succeed, and would make everything a second time.
* The package of the app has bytecode (`app_zip.py`).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from botocore.session import Session
from chalice.cli import main
from chalice.cli.factory import CLIFactory
from chalice.config import Config
from chalice.deploy.deployer import Deployer
from chalice.deploy.packager import AppOnlyDeploymentPackager

from infra.deployment import app_zip
from infra.deployment.event_sources import settings_of_new

_original_session = CLIFactory.create_botocore_session
_original_deploy = Deployer._deploy


def session_with_settings(factory: CLIFactory, *arguments: Any, **named: Any) -> Session:
    session: Session = _original_session(factory, *arguments, **named)

    def add_settings(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        return settings_of_new(os.environ["HEADRACE_STAGE"], params)

    session.register("provide-client-params.lambda.CreateEventSourceMapping", add_settings)
    return session


def deploy_and_record(deployer: Deployer, config: Config, stage: str) -> dict[str, Any]:
    try:
        deployed: dict[str, Any] = _original_deploy(deployer, config, stage)
    except BaseException:
        if made := deployer._executor.resource_values:
            recorded = {
                "resources": merged(recorded_resources(config, stage), made),
                "schema_version": "2.0",
                "backend": Deployer.BACKEND_NAME,
            }
            deployer._recorder.record_results(recorded, stage, config.project_dir)
        raise
    return deployed


def recorded_resources(config: Config, stage: str) -> list[dict[str, Any]]:
    before = config.deployed_resources(stage)
    return [before.resource_values(name) for name in before.resource_names()]


def merged(before: list[dict[str, Any]], made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The resources that were recorded before, with what this deployment has made or changed."""
    resources = {each["name"]: dict(each) for each in before}
    for each in made:
        resources[each["name"]] = resources.get(each["name"], {}) | each
    return list(resources.values())


def create_deployment_package(packager: AppOnlyDeploymentPackager, project_dir: str, python_version: str) -> str:
    return str(app_zip.build(packager, project_dir, python_version))


def install() -> None:
    """Put the additions into Chalice, in this process."""
    CLIFactory.create_botocore_session = session_with_settings
    Deployer._deploy = deploy_and_record
    AppOnlyDeploymentPackager.create_deployment_package = create_deployment_package


if __name__ == "__main__":
    install()
    sys.exit(main())
