"""The layer with the dependencies, built before `chalice deploy`, which then finds and reuses it.

Chalice's own layer has no bytecode and all 443 services of botocore. Compiling and pruning halves a cold start and the layer's size.
The `local` layer is installed for the machine that runs it, whatever its system and processor, and holds a pointer to a folder: the
emulator unpacks layers anew for each environment, which would take seconds, and puts them behind its own packages.
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

REQUIREMENTS = ROOT / "requirements.txt"
AWS_SERVICES = {
    *("apigatewaymanagementapi", "cloudwatch", "dynamodb", "dynamodbstreams", "events", "lambda", "logs", "s3"),
    *("scheduler", "secretsmanager", "ses", "sesv2", "sns", "sqs", "ssm", "sts"),
}
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
POINTER = "headrace.pth"
NEWER_PYTHON = (
    "Lambda's python3.11 has an old C library that the arm64 builds of some packages do without. Deploy with Python 3.12 or newer"
    " (make PYTHON=python3.12 deploy ...), or with x86_64 (ARCHITECTURE in infra/chalice_config.py)."
)


class NoWheel(RuntimeError):
    """A package cannot be shipped; the message says which, and what helps."""


def build(stage: str) -> Path:
    """The layer's zip, made if the requirements changed since."""
    config = CLIFactory(str(ROOT)).create_config_obj(stage)
    dependencies = _dependency_builder(config)
    packager = LayerDeploymentPackager(OSUtils(), dependencies, UI(), config.lambda_architecture)
    python = config.lambda_python_version
    zip_path = Path(packager.deployment_package_filename(str(ROOT), python))
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    inside = f"python/lib/{python}/site-packages"
    if stage == "local":
        _zip({f"{inside}/{POINTER}": _pointer(_unpacked(zip_path.with_suffix("")))}, zip_path)
    elif not zip_path.exists() or _is_pointer(zip_path):
        with tempfile.TemporaryDirectory(dir=zip_path.parent) as scratch:
            site_packages = Path(scratch)
            _install_for_lambda(dependencies, config, site_packages)
            _slim_down(site_packages)
            _zip({f"{inside}/{name}": content for name, content in _contents(site_packages)}, zip_path)
    return zip_path


def _unpacked(folder: Path) -> Path:
    """The packages of the `local` layer, as a folder."""
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            site_packages = Path(scratch, "site-packages")
            _install_for_this_machine(site_packages)
            _slim_down(site_packages)
            site_packages.rename(folder)
    return folder


def _pointer(site_packages: Path) -> bytes:
    """A line that Python runs when the layer is found: as on AWS, functions see the layer's packages and the standard library only."""
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
    """Called directly, since Chalice's packager deploys without a package for which there is no wheel, after a warning.

    Raises:
        NoWheel: some package has none for that Python and processor.
    """
    abi = "cp" + config.lambda_python_version.removeprefix("python").replace(".", "")
    try:
        dependencies.build_site_packages(abi, str(REQUIREMENTS), str(target))
    except MissingDependencyError as missing:
        names = ", ".join(sorted(package.identifier for package in missing.missing))
        where = f"{config.lambda_python_version} on {config.lambda_architecture}"
        raise NoWheel(f"Nobody built {names} for Lambda's {where}. {NEWER_PYTHON}") from missing


def _slim_down(site_packages: Path) -> None:
    """Drop what no function reads; add bytecode that is never checked against its source, since Lambda changes file times."""
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


def _zip(files: dict[str, bytes], target: Path) -> None:
    """Written whole or not at all; the same content gives the same zip."""
    unfinished = target.with_suffix(".tmp")
    with zipfile.ZipFile(unfinished, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    unfinished.replace(target)
