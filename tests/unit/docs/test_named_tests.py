"""Tests and files that a page names as evidence exist."""

from __future__ import annotations

import re

import pytest

from tests.kit.paths import ROOT

DEFINED = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^ *def (test_\w+)\(", path.read_text(), re.M)}
NAMED = re.compile(r"`(?:[\w/]+\.py::)?(test_\w+)`")
PATHS = re.compile(
    r"`((?:tests|chalicelib|services|adapters|domain|consumers|ports|entrypoints|cli|clients|infra)/[\w/]+\.(?:py|mjs|json))"
)


@pytest.mark.parametrize("page", ["reliability.md", "protocol.md", "aws.md"])
def test_every_test_named_on_a_page_exists(page: str) -> None:
    """A renamed test must be renamed on the page as well."""
    named = set(NAMED.findall((ROOT / "docs" / page).read_text()))
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}

    assert len(named) > 20
    assert named - DEFINED - files == set()


@pytest.mark.parametrize("page", ["reliability.md", "protocol.md", "aws.md"])
def test_every_file_named_on_a_page_exists(page: str) -> None:
    """Paths may start at the repository root or below `chalicelib/`."""
    named = set(PATHS.findall((ROOT / "docs" / page).read_text()))

    assert named
    assert {path for path in named if not (ROOT / path).exists() and not (ROOT / "chalicelib" / path).exists()} == set()
