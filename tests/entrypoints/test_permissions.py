"""Each function can do with its own role all that it may have to do, and no role has a right that nothing needs.

In the other tests of this folder the functions may do everything. Here a stage on moto runs them with
the roles that they have on AWS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.adapters.s3.blobs import Blobs, key_of
from infra.chalice_config import FUNCTIONS
from infra.policies import KINDS, policy
from tests.kit.exercises import Exercises, prepare
from tests.kit.iam import Ask, Roles, allows
from tests.kit.moto_stage import ACCOUNT, STAGE, stage_on_moto
from tests.kit.parliament import takes

Policy = dict[str, Any]

POLICIES = {kind: policy(kind, STAGE) for kind in KINDS}
UNEXERCISED = {"Logs": "Lambda itself writes what a function logs, and does not run here"}
# The rights on tables are given in groups (READ, CHANGE, REMOVE), so single ones of them may be spare.
GROUPED = "Table"
STATEMENTS = [
    (kind, statement["Sid"]) for kind in KINDS for statement in POLICIES[kind]["Statement"] if statement["Sid"] not in UNEXERCISED
]
ACTIONS = [
    (kind, sid, action)
    for kind, sid in STATEMENTS
    if not sid.endswith(GROUPED)
    for statement in POLICIES[kind]["Statement"]
    if statement["Sid"] == sid
    for action in statement["Action"]
]
HOW = "tests/kit/exercises.py has no exercise that needs it: add one, or take the right away in infra/policies.py"


@contextmanager
def stage_with(policies: Mapping[str, Policy]) -> Iterator[Exercises]:
    with stage_on_moto():
        yield prepare(Roles(policies))


@pytest.fixture(scope="module")
def exercised() -> Exercises:
    """The stage after all exercises."""
    with stage_with(POLICIES) as exercises:
        exercises.run()
        return exercises


@pytest.fixture(scope="module")
def asked(exercised: Exercises) -> dict[str, set[Ask]]:
    """What each role has asked for."""
    return dict(exercised.cloud.roles.asked)


def without(kind: str, sid: str, action: str | None = None) -> Policy:
    """The policy without a statement, or without one action of it."""
    statements = []
    for statement in POLICIES[kind]["Statement"]:
        left = [each for each in statement["Action"] if action is not None and each != action] if statement["Sid"] == sid else None
        if left is None or left:
            statements.append(statement if left is None else {**statement, "Action": left})
    return {**POLICIES[kind], "Statement": statements}


def refused_by(changed: Policy, asks: set[Ask], actions: list[str]) -> list[Ask]:
    """What a policy refuses of the asks for these actions."""
    return [ask for ask in sorted(asks, key=str) if ask.action in actions and not allows(changed, ask)]


def test_no_function_is_refused_what_it_has_to_do(exercised: Exercises) -> None:
    """Prompts, results and rows are objects; objects, receivers and connections are gone; workers die."""
    assert exercised.cloud.roles.refused == []


def test_every_function_and_every_kind_is_exercised(exercised: Exercises, asked: dict[str, set[Ask]]) -> None:
    assert {function.name for function in FUNCTIONS} - exercised.cloud.invoked == set(), "tests/kit/exercises.py does not invoke these"
    assert set(KINDS) - set(asked) == set(), "tests/kit/exercises.py invokes no function of these kinds"


@pytest.mark.parametrize(("kind", "sid"), STATEMENTS)
def test_every_statement_is_needed(asked: dict[str, set[Ask]], kind: str, sid: str) -> None:
    """Without it an exercise is refused, and fails."""
    actions = next(statement["Action"] for statement in POLICIES[kind]["Statement"] if statement["Sid"] == sid)

    assert refused_by(without(kind, sid), asked[kind], actions), f"{kind}, {sid}: {HOW}"


@pytest.mark.parametrize(("kind", "sid", "action"), ACTIONS)
def test_every_action_is_needed(asked: dict[str, set[Ask]], kind: str, sid: str, action: str) -> None:
    assert refused_by(without(kind, sid, action), asked[kind], [action]), f"{kind}, {sid}, {action}: {HOW}"


def test_what_the_calls_ask_for_exists_on_aws(asked: dict[str, set[Ask]]) -> None:
    """The kit reads action and resource from a call; AWS's own reference knows both."""
    kinds_of_asks = {(ask.action, ask.resource.rsplit("/", 1)[0]): ask for asks in asked.values() for ask in asks}

    assert [str(ask) for ask in kinds_of_asks.values() if not takes(ask.action, ask.resource)] == []


def test_without_its_right_to_content_on_job_change_tells_nobody_of_the_end_of_a_large_job() -> None:
    """A statement that is taken away makes an exercise fail: the refusal is not only recorded."""
    with stage_with({**POLICIES, "on_job_change": without("on_job_change", "Content")}) as exercises:
        exercises.recipients()
        with pytest.raises(AssertionError):
            exercises.job()

        assert {(kind, ask.action) for kind, ask in exercises.cloud.roles.refused} == {("on_job_change", "s3:GetObject")}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "s3:GetObject" in str(POLICIES[kind])])
def test_an_absent_object_is_absent_and_not_forbidden(exercised: Exercises, kind: str) -> None:
    """S3 answers 403 for it to a role that may not list the bucket."""
    absent = Ask("s3:ListBucket", f"arn:aws:s3:::headrace-{STAGE}-content-{ACCOUNT}", key_of("acme", "job_1", "spec"))

    assert allows(POLICIES[kind], absent)
    assert allows(POLICIES[kind], Ask(absent.action, absent.resource)), "S3 may compare without a prefix"


def test_a_role_that_may_not_list_is_forbidden_to_read_what_is_absent() -> None:
    """The kit answers as S3 does."""
    policies = {"may_list": POLICIES["websocket"], "may_not": without("websocket", "FindContent")}
    with stage_on_moto():
        roles, blobs = Roles(policies), Blobs(STAGE, ACCOUNT)
        with roles.acting_as("may_list"):
            assert blobs.get(key_of("acme", "job_1", "spec")) is None
        with roles.acting_as("may_not"), pytest.raises(ClientError, match="AccessDenied"):
            blobs.get(key_of("acme", "job_1", "spec"))
