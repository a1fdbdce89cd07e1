"""The layer with the dependencies, built before `chalice deploy`, which then finds and reuses it.

Chalice's own layer has no bytecode and all 443 services of botocore. Compiling and pruning halves a cold start and the layer's size.
The `local` layer is installed for the machine that runs it, whatever its system and processor; the others for Lambda's.
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from py_compile import PycInvalidationMode

from chalice.cli.factory import CLIFactory
from chalice.config import Config
from chalice.deploy.packager import DependencyBuilder, LayerDeploymentPackager, PipRunner, SubprocessPip
from chalice.utils import UI, OSUtils

from infra.chalice_config import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
AWS_SERVICES = {
    *("apigatewaymanagementapi", "cloudwatch", "dynamodb", "dynamodbstreams", "events", "lambda", "logs", "s3"),
    *("scheduler", "secretsmanager", "ses", "sesv2", "sns", "sqs", "ssm", "sts"),
}
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same content gives the same zip


def build(stage: str) -> Path:
    """The layer's zip, made if the requirements changed since."""
    config = CLIFactory(str(ROOT)).create_config_obj(stage)
    dependencies = _dependency_builder(config)
    packager = LayerDeploymentPackager(OSUtils(), dependencies, UI(), config.lambda_architecture)
    python = config.lambda_python_version
    zip_path = Path(packager.deployment_package_filename(str(ROOT), python))
    if not zip_path.exists():
        zip_path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=zip_path.parent) as scratch:
            site_packages = Path(scratch, "site-packages")
            site_packages.mkdir()
            if stage == "local":
                _install_for_this_machine(site_packages)
            else:
                _install_for_lambda(dependencies, python, site_packages)
            _prune(site_packages)
            _compile(site_packages)
            _zip(site_packages, Path(scratch, "layer.zip"), f"python/lib/{python}/site-packages").replace(zip_path)
    return zip_path


def _dependency_builder(config: Config) -> DependencyBuilder:
    pip = PipRunner(pip=SubprocessPip(OSUtils()), osutils=OSUtils())
    return DependencyBuilder(OSUtils(), pip, architecture=config.lambda_architecture)


def _install_for_this_machine(target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", str(target), "--requirement", str(REQUIREMENTS)], check=True)


def _install_for_lambda(dependencies: DependencyBuilder, python: str, target: Path) -> None:
    """Called directly, since Chalice's packager goes on with a warning when a wheel is missing; this raises."""
    abi = "cp" + python.removeprefix("python").replace(".", "")
    dependencies.build_site_packages(abi, str(REQUIREMENTS), str(target))


def _prune(site_packages: Path) -> None:
    """Drop what no function reads: other AWS services, examples, scripts."""
    for folder in (site_packages / "botocore" / "data").iterdir():
        if folder.is_dir() and folder.name not in AWS_SERVICES:
            shutil.rmtree(folder)
    for name in ("bin", "boto3/examples"):
        shutil.rmtree(site_packages / name, ignore_errors=True)


def _compile(site_packages: Path) -> None:
    """Bytecode that is never checked against its source, since Lambda unpacks with other file times."""
    compileall.compile_dir(
        site_packages, quiet=2, workers=0, stripdir=str(site_packages), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )


def _zip(folder: Path, target: Path, prefix: str) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(f"{prefix}/{path.relative_to(folder).as_posix()}", ZIP_TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())
    return target
