"""Fixtures that cost seconds, once for all tests of this folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from cfnlint.api import lint

from infra.naming import STAGES
from tests.kit.chalice_package import Template, packaged

REGIONS = ["us-east-1"]
LINTER = version("cfn-lint")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    """What Chalice makes of each stage, as CloudFormation."""
    return packaged(STAGES, tmp_path_factory.mktemp("packages"))


@pytest.fixture
def problems(pytestconfig: pytest.Config) -> Callable[[dict[str, Any]], list[str]]:
    """What cfn-lint finds in a template. That a template has nothing to find is remembered between runs."""

    def find(template: dict[str, Any]) -> list[str]:
        text = json.dumps(template)
        key = f"headrace/clean-{hashlib.sha256(f'{LINTER} {text}'.encode()).hexdigest()}"
        if pytestconfig.cache is not None and pytestconfig.cache.get(key, False):
            return []
        found = [f"{match.rule.id} {match.message}" for match in lint(text, regions=REGIONS)]
        if pytestconfig.cache is not None and not found:
            pytestconfig.cache.set(key, True)
        return found

    return find
