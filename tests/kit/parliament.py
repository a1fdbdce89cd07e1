"""The library parliament: what AWS's Service Authorization Reference says about actions, resources and policies."""

from __future__ import annotations

import importlib
import json
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def _import() -> ModuleType:
    """Import parliament without setuptools' `pkg_resources`.

    It needs that only to find its own files, and setuptools has removed it: to keep an old
    setuptools for it would hold back everything that is built with setuptools.
    """
    stand_in: Any = ModuleType("pkg_resources")
    stand_in.resource_filename = lambda package, name: str(Path(sys.modules[package].__file__ or "").parent / name)
    real = sys.modules.get("pkg_resources")
    sys.modules["pkg_resources"] = stand_in
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves closing its files to the interpreter
            return importlib.import_module("parliament")
    finally:
        del sys.modules["pkg_resources"]
        if real is not None:
            sys.modules["pkg_resources"] = real


parliament: Any = _import()


def findings(policy: Mapping[str, Any]) -> list[str]:
    """What parliament objects to, as texts."""
    found = parliament.analyze_policy_string(json.dumps(policy)).findings
    return [f"{each.issue}: {each.detail}" for each in found]


def resource_formats(action: str) -> dict[str, str]:
    """The resources that an action takes, as kind and ARN with wildcards; none: it takes only `*`.

    Raises:
        parliament.UnknownActionException: AWS has no such action.
    """
    info = parliament.statement.get_privilege_info(*action.split(":"))
    kinds = {kind["resource_type"].removesuffix("*") for kind in info["resource_types"]}
    return {each["resource"]: re.sub(r"\$\{.*?\}", "*", each["arn"]) for each in info["service_resources"] if each["resource"] in kinds}


def takes(action: str, resource: str) -> bool:
    """Whether an action takes a resource with this ARN."""
    formats = resource_formats(action)
    if resource == "*" or not formats:
        return resource == "*" and not formats
    return any(parliament.is_arn_match(kind, arn, resource) for kind, arn in formats.items())
