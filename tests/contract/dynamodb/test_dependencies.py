"""The store of dependencies, on the twin and on moto."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.dependencies import DependencyEdge
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from tests.contract.conftest import STAGE, LoseResponse
from tests.kit.records import NOW, new_id

TTL = NOW // 1000 + 600


def create_child(stores: Any, *aliases: str, run_anyway: bool = False) -> tuple[str, dict[str, str]]:
    """Create a child with all its rows, and return it with its parents."""
    child, parents = new_id(), {alias: new_id() for alias in aliases}
    stores.dependencies.put(child, parents, run_anyway=run_anyway, ttl=TTL)
    stores.dependencies.link(child, parents, run_anyway=run_anyway, ttl=TTL)
    return child, parents


def test_put_stores_the_dependency_record_without_edges(stores: Any) -> None:
    child, parents = new_id(), {"a": new_id(), "b": new_id()}

    stores.dependencies.put(child, parents, run_anyway=True, ttl=TTL)

    known = stores.dependencies.get(child)
    assert (known.parents, known.open, known.run_anyway, known.linked_until) == (parents, frozenset(parents.values()), True, 0)
    assert [stores.dependencies.children(parent) for parent in parents.values()] == [[], []]


def test_link_stores_an_edge_with_run_anyway_for_each_parent(stores: Any) -> None:
    """A repeated link changes nothing."""
    child, parents = create_child(stores, "a", "b", run_anyway=True)
    stores.dependencies.link(child, parents, run_anyway=True, ttl=TTL)

    assert [stores.dependencies.children(parent) for parent in parents.values()] == [[DependencyEdge(child, True)]] * 2


def test_marking_a_parent_ended_is_idempotent(stores: Any, lose_response: LoseResponse) -> None:
    """A counter would get this wrong: a replayed end must not count as a second parent."""
    child, parents = create_child(stores, "a", "b")
    mark_parents_ended = stores.dependencies.mark_parents_ended

    with lose_response("UpdateItem"):
        assert mark_parents_ended(child, [parents["a"]]) == 1
    assert mark_parents_ended(child, [parents["a"]]) == 1
    assert stores.dependencies.get(child).open == {parents["b"]}
    assert mark_parents_ended(child, [parents["b"]]) == 0
    assert mark_parents_ended(child, [parents["b"]]) == 0
    assert stores.dependencies.get(child).open == frozenset()


def test_several_parents_are_marked_ended_together_with_linked_until(stores: Any) -> None:
    """A job that is no parent is ignored."""
    child, parents = create_child(stores, "a", "b", "c")

    left = stores.dependencies.mark_parents_ended(child, [parents["a"], parents["c"], new_id()], linked_until=TTL + 9)

    known = stores.dependencies.get(child)
    assert (left, known.open, known.linked_until) == (1, {parents["b"]}, TTL + 9)


def test_marking_no_parents_returns_the_number_of_open_parents(stores: Any) -> None:
    child, _ = create_child(stores, "a", "b")

    assert stores.dependencies.mark_parents_ended(child, [], linked_until=TTL) == 2
    assert stores.dependencies.mark_parents_ended(child, []) == 2


def test_mark_parents_ended_does_not_create_a_dependency_record(stores: Any) -> None:
    """A parent may end after the child was deleted."""
    missing = new_id()

    assert stores.dependencies.mark_parents_ended(missing, [new_id()]) is None
    assert stores.dependencies.mark_parents_ended(missing, []) is None
    assert stores.dependencies.get(missing) is None


def test_children_are_paged_in_id_order(stores: Any) -> None:
    parent = new_id()
    children = sorted(new_id(NOW + number) for number in range(7))
    for child in children:
        stores.dependencies.link(child, {"p": parent}, run_anyway=False, ttl=TTL)

    first = stores.dependencies.children(parent, limit=3)
    second = stores.dependencies.children(parent, first[-1].child, 3)
    third = stores.dependencies.children(parent, second[-1].child, 3)

    assert [edge.child for edge in (*first, *second, *third)] == children
    assert stores.dependencies.children(parent, third[-1].child) == []


def test_a_job_may_have_a_hundred_parents(stores: Any) -> None:
    """A hundred is the limit of a job."""
    child, parents = create_child(stores, *(f"{'a' * 60}{number:03}" for number in range(100)))

    assert stores.dependencies.get(child).parents == parents
    assert len(stores.dependencies.get(child).open) == 100
    assert all(stores.dependencies.children(parent) == [DependencyEdge(child, False)] for parent in parents.values())
    assert stores.dependencies.mark_parents_ended(child, list(parents.values())[:99]) == 1


def test_parents_of_several_jobs_are_read_together(stores: Any) -> None:
    """Jobs without a dependency record are left out."""
    first, second, missing = create_child(stores, "a"), create_child(stores, "x", "y"), new_id()

    assert stores.dependencies.parents_of([first[0], second[0], missing]) == dict([first, second])


def test_deleting_a_job_removes_its_edges_on_both_sides(stores: Any) -> None:
    """A child keeps its dependency record when only a parent is deleted."""
    child, parents = create_child(stores, "a", "b")
    a, b = parents.values()
    stores.job_specs.put(child, "acme", JobSpec(prompt="x", config=JobConfig(model="m", max_tokens=1)), TTL)

    stores.job_data.delete_all(a, "acme")

    assert stores.dependencies.children(a) == []
    assert stores.dependencies.children(b) == [DependencyEdge(child, False)]
    assert stores.dependencies.get(child).open == {a, b}

    stores.job_data.delete_all(child, "acme")
    stores.job_data.delete_all(child, "acme")

    assert stores.dependencies.children(b) == []
    assert stores.dependencies.get(child) is None


def test_batch_put_retries_unprocessed_items(dynamo_stores: DynamoStores) -> None:
    """`Throttled` is raised when items stay unprocessed."""
    child, parents = new_id(), {f"p{number}": new_id() for number in range(30)}
    items = [dynamo_stores.dependencies._items(parent, f"child#{child}", ttl=TTL) for parent in parents.values()]
    table = dynamodb.table_name(STAGE, "job_data")
    left_out: list[Any] = []
    pauses: list[float] = []

    def leave_out_two(params: Any, **_: Any) -> Any:
        requests = params["RequestItems"][table]
        left_out[:] = requests[-2:] if len(pauses) < max_failures else []
        return {**params, "RequestItems": {table: requests[: len(requests) - len(left_out)] or requests[:1]}}

    def report_left_out(parsed: Any, **_: Any) -> None:
        parsed["UnprocessedItems"] = {table: list(left_out)} if left_out else {}

    events = aws.client("dynamodb").meta.events
    events.register("provide-client-params.dynamodb.BatchWriteItem", leave_out_two)
    events.register("after-call.dynamodb.BatchWriteItem", report_left_out)
    try:
        max_failures = 2
        dynamodb.batch_put(items, pauses.append)
        assert len(pauses) == 2
        max_failures = 10**6
        with pytest.raises(Throttled):
            dynamodb.batch_put(items, pauses.append)
    finally:
        events.unregister("provide-client-params.dynamodb.BatchWriteItem", leave_out_two)
        events.unregister("after-call.dynamodb.BatchWriteItem", report_left_out)

    assert all(dynamo_stores.dependencies.children(parent) == [DependencyEdge(child, False)] for parent in parents.values())


def test_dependency_rows_have_a_ttl_that_can_be_extended(dynamo_stores: DynamoStores) -> None:
    """The rows must live as long as the job spec."""
    child, parents = create_child(dynamo_stores, "a")
    items = dynamo_stores.dependencies._items

    dynamo_stores.dependencies.link(child, parents, run_anyway=False, ttl=TTL + 60)
    dynamo_stores.dependencies.mark_parents_ended(child, [], linked_until=TTL + 60)

    rows = [*items.query(child), *items.query(parents["a"])]
    assert {row.sk: row.ttl for row in rows} == {"parents": TTL + 60, "wait": TTL + 60, f"child#{child}": TTL + 60}
