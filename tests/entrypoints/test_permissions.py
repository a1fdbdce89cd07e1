"""Each function can do with its own role what it may have to do, and no role has a statement that nothing needs.

On AWS a function has only the rights of its policy; in the other tests of this folder it may do everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from infra.chalice_config import FUNCTIONS
from infra.policies import KINDS, policy
from tests.kit.exercises import Exercises, prepare
from tests.kit.iam import Ask, Roles, allows
from tests.kit.lambdas import LAMBDA_ITSELF
from tests.kit.moto_stage import STAGE, stage_on_moto

POLICIES = {kind: policy(kind, STAGE) for kind in KINDS}
STATEMENTS = [(kind, statement["Sid"]) for kind in KINDS for statement in POLICIES[kind]["Statement"]]
UNEXERCISED = {"Logs": "Lambda itself writes what a function logs"}
# Rights on a table are given in groups, of reading and of changing: that of single ones is not worth a list for each function.
SINGLE_ACTIONS = [
    (kind, statement["Sid"], action)
    for kind in KINDS
    for statement in POLICIES[kind]["Statement"]
    for action in statement["Action"]
    if statement["Sid"] not in UNEXERCISED and not statement["Sid"].endswith("Table")
]


def run_exercises(policies: dict[str, Any]) -> Roles:
    with stage_on_moto():
        exercises = prepare(Roles(policies))
        exercises.run()
        assert exercises.cloud.roles.refused == []
        assert {function.name for function in FUNCTIONS} - exercises.cloud.invoked == set(), "tests/kit/exercises.py: no exercise for these"
        return exercises.cloud.roles


@pytest.fixture(scope="module")
def roles() -> Roles:
    """The roles after all exercises."""
    return run_exercises(POLICIES)


def test_no_function_is_refused_what_it_has_to_do(roles: Roles) -> None:
    """Prompts, results and rows are objects; objects, receivers and connections are gone; workers die."""
    assert roles.refused == []


def without(policy: dict[str, Any], sid: str, action: str | None = None) -> dict[str, Any]:
    """The policy without a statement, or without one action of it."""
    ...
