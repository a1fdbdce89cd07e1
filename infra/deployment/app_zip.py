"""The zip of the app with bytecode, which more than halves the import of the app in a cold start.

The package that Chalice makes has none, and Lambda cannot store what it compiles. The bytecode is
never checked against its source, because Lambda changes the times of files. It is made for the zip
only, from the source that lies beside it: in the checkout such bytecode would hide every edit.
"""

from __future__ import annotations

import hashlib
import py_compile
import sys
import tempfile
from pathlib import Path, PurePosixPath
from py_compile import PycInvalidationMode

from chalice.deploy.packager import AppOnlyDeploymentPackager

from infra.deployment.zip_file import write_zip

FUNCTION_FOLDER = "/var/task/"  # where Lambda unpacks the zip; without it the bytecode would name a temporary file
UNCHECKED = PycInvalidationMode.UNCHECKED_HASH
FORMAT = "1"  # part of the file name, so that a zip of another kind is never used again

Files = dict[str, bytes]


def build(packager: AppOnlyDeploymentPackager, project_dir: str, python: str) -> Path:
    """Write the zip, unless it exists for the same content, and return its path.

    Args:
        python: the runtime, such as `python3.12`; bytecode of another version is of no use to it.
    """
    files = app_files(packager, project_dir)
    target = Path(project_dir, ".chalice", "deployments", f"appcode-{_digest(files)}-{python}.zip")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_zip(files | (bytecode(files) if runtime_of_this_interpreter() == python else {}), target)
    return target


def app_files(packager: AppOnlyDeploymentPackager, project_dir: str) -> Files:
    """The files of the package by their names in it, without what Python left in the checkout."""
    found = packager._iter_app_filenames(project_dir)
    return {name: Path(path).read_bytes() for path, name in sorted(found, key=lambda each: each[1]) if "__pycache__" not in name}


def bytecode(files: Files) -> Files:
    """The bytecode of the sources."""
    made = {}
    with tempfile.TemporaryDirectory() as scratch:
        source, compiled = Path(scratch, "source.py"), Path(scratch, "compiled.pyc")
        for name, content in files.items():
            path = PurePosixPath(name)
            if path.suffix == ".py":
                source.write_bytes(content)
                py_compile.compile(str(source), str(compiled), FUNCTION_FOLDER + name, doraise=True, invalidation_mode=UNCHECKED)
                made[str(path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc")] = compiled.read_bytes()
    return made


def runtime_of_this_interpreter() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _digest(files: Files) -> str:
    digest = hashlib.sha256(FORMAT.encode())
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]
