"""Build the Lambda layer with the dependencies before `chalice deploy`, which then reuses it.

The layer that Chalice builds has no bytecode and all 443 services of botocore. Compiling and
pruning halves the cold start and the size of the layer. The `local` layer is installed for the
machine that runs it and holds only a pointer to a folder: the emulator unpacks a layer again for
each environment, which takes seconds, and puts it behind its own packages.
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

from chalice.cli.factory import CLIFactory
from chalice.config import Config
from chalice.deploy.packager import DependencyBuilder, LayerDeploymentPackager, MissingDependencyError, PipRunner, SubprocessPip
from chalice.utils import UI, OSUtils

from infra.chalice_config import ROOT
from infra.deployment.zip_file import write_zip

REQUIREMENTS = ROOT / "requirements.txt"
AWS_SERVICES = {
    *("apigatewaymanagementapi", "cloudwatch", "dynamodb", "dynamodbstreams", "events", "lambda", "logs", "s3"),
    *("scheduler", "secretsmanager", "ses", "sesv2", "sns", "sqs", "ssm", "sts"),
}
POINTER = "headrace.pth"
NEWER_PYTHON = (
    "Lambda's python3.11 has an old C library, for which some packages have no arm64 wheels. Deploy with Python 3.12 or newer"
    " (make PYTHON=python3.12 deploy ...), or with x86_64 (ARCHITECTURE in infra/chalice_config.py)."
)


class NoWheel(RuntimeError):
    """A package has no wheel for Lambda; the message names it and the remedy."""


def build(stage: str) -> Path:
    """Build the zip of the layer, unless it exists for these requirements, and return its path."""
    config = CLIFactory(str(ROOT)).create_config_obj(stage)
    dependencies = _dependency_builder(config)
    packager = LayerDeploymentPackager(OSUtils(), dependencies, UI(), config.lambda_architecture)
    python = config.lambda_python_version
    zip_path = Path(packager.deployment_package_filename(str(ROOT), python))
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"python/lib/{python}/site-packages"
    if stage == "local":
        write_zip({f"{prefix}/{POINTER}": _pointer(_local_packages(zip_path.with_suffix("")))}, zip_path)
    elif not zip_path.exists() or _is_pointer(zip_path):
        with tempfile.TemporaryDirectory(dir=zip_path.parent) as scratch:
            site_packages = Path(scratch)
            _install_for_lambda(dependencies, config, site_packages)
            _slim_down(site_packages)
            write_zip({f"{prefix}/{name}": content for name, content in _contents(site_packages)}, zip_path)
    return zip_path


def _local_packages(folder: Path) -> Path:
    """Install the packages of the `local` layer into a folder, unless it exists."""
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            site_packages = Path(scratch, "site-packages")
            _install_for_this_machine(site_packages)
            _slim_down(site_packages)
            site_packages.rename(folder)
    return folder


def _pointer(site_packages: Path) -> bytes:
    """A .pth file that, as on AWS, leaves only the layer and the standard library importable."""
    others = '[path for path in sys.path if "site-packages" not in path]'
    return f"import sys; sys.path[:] = [{str(site_packages)!r}, *{others}]\n".encode()


def _is_pointer(zip_path: Path) -> bool:
    with zipfile.ZipFile(zip_path) as archive:
        return any(name.endswith(POINTER) for name in archive.namelist())


def _dependency_builder(config: Config) -> DependencyBuilder:
    pip = PipRunner(pip=SubprocessPip(OSUtils()), osutils=OSUtils())
    return DependencyBuilder(OSUtils(), pip, architecture=config.lambda_architecture)


def _install_for_this_machine(target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", str(target), "--requirement", str(REQUIREMENTS)], check=True)


def _install_for_lambda(dependencies: DependencyBuilder, config: Config, target: Path) -> None:
    """Install the packages for Lambda.

    The packager of Chalice would only warn about a package without a wheel and deploy without it.

    Raises:
        NoWheel: a package has no wheel for this Python version and architecture.
    """
    abi = "cp" + config.lambda_python_version.removeprefix("python").replace(".", "")
    try:
        dependencies.build_site_packages(abi, str(REQUIREMENTS), str(target))
    except MissingDependencyError as missing:
        names = ", ".join(sorted(package.identifier for package in missing.missing))
        where = f"{config.lambda_python_version} on {config.lambda_architecture}"
        raise NoWheel(f"There is no wheel of {names} for Lambda's {where}. {NEWER_PYTHON}") from missing


def _slim_down(site_packages: Path) -> None:
    """Remove files that no function reads and add bytecode.

    The bytecode is never checked against its source, because Lambda changes the file times.
    """
    for folder in (site_packages / "botocore" / "data").iterdir():
        if folder.is_dir() and folder.name not in AWS_SERVICES:
            shutil.rmtree(folder)
    for name in ("bin", "boto3/examples"):
        shutil.rmtree(site_packages / name, ignore_errors=True)
    compileall.compile_dir(
        site_packages, quiet=2, workers=0, stripdir=str(site_packages), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()
