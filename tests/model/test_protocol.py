"""The rules of the model are sufficient, and each of them is necessary."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.paths import ROOT
from tests.model.protocol import SMALL
from tests.model.search import Small, explore
from tests.model.waiting import Together


def test_all_rules_are_sufficient_and_each_is_necessary() -> None:
    """The subprocess explores every interleaving of the small cases."""
    run = subprocess.run([sys.executable, "-m", "tests.model.protocol", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "64 rules removed" in run.stdout
    assert run.stdout.rstrip().endswith("OK")


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.__name__)
def test_small_model_needs_each_of_its_rules(model: type[Small]) -> None:
    """The exploration runs in this process, where a debugger sees it."""
    assert not explore(model(), frozenset(model.rules)).violation
    for rule in model.rules:
        assert explore(model(), frozenset(model.rules) - {rule}).violation, rule


def test_a_freeze_and_a_death_between_two_writes_are_too_much_for_a_line() -> None:
    """The limit that docs/protocol.md states, so that this page and the model agree on it."""
    report = explore(Together(death=1, freeze=1), frozenset())

    assert report.violation.startswith("STUCK")
    assert report.trace.index("the worker freezes") < report.trace.index("a worker dies (held)")
