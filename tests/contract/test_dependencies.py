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
from tests.contract.conftest import STAGE, Lost
from tests.contract.given import NOW, new_id

TTL = NOW // 1000 + 600


def create_child(stores: Any, *aliases: str, run_anyway: bool = False) -> tuple[str, dict[str, str]]:
    """Create a child with all its rows, and return it with its parents."""
    child, parents = new_id(), {alias: new_id() for alias in aliases}
    stores.dependencies.put(child, parents, run_anyway=run_anyway, ttl=TTL)
    stores.dependencies.link(child, parents, run_anyway=run_anyway, ttl=TTL)
    return child, parents


def test_a_child_knows_its_parents_before_they_know_it(stores: Any) -> None:
    child, parents = new_id(), {"a": new_id(), "b": new_id()}

    stores.dependencies.put(child, parents, run_anyway=True, ttl=TTL)

    known = stores.dependencies.get(child)
    assert (known.parents, known.open, known.run_anyway, known.linked_until) == (parents, frozenset(parents.values()), True, 0)
    assert [stores.dependencies.children(parent) for parent in parents.values()] == [[], []]


def test_parents_are_told_with_what_is_to_happen_if_they_fail(stores: Any) -> None:
    child, parents = create_child(stores, "a", "b", run_anyway=True)
    stores.dependencies.link(child, parents, run_anyway=True, ttl=TTL)  # again

    assert [stores.dependencies.children(parent) for parent in parents.values()] == [[DependencyEdge(child, True)]] * 2


def test_crossing_off_twice_is_crossing_off_once(stores: Any, answer_lost: Lost) -> None:
    """What counting down would get wrong: one replayed end must not stand for two."""
    child, parents = create_child(stores, "a", "b")
    mark_parents_ended = stores.dependencies.mark_parents_ended

    with answer_lost("UpdateItem"):
        assert mark_parents_ended(child, [parents["a"]]) == 1
    assert mark_parents_ended(child, [parents["a"]]) == 1
    assert stores.dependencies.get(child).open == {parents["b"]}
    assert mark_parents_ended(child, [parents["b"]]) == 0
    assert mark_parents_ended(child, [parents["b"]]) == 0
    assert stores.dependencies.get(child).open == frozenset()


def test_several_are_crossed_off_at_once_with_the_word_that_all_were_told(stores: Any) -> None:
    child, parents = create_child(stores, "a", "b", "c")

    left = stores.dependencies.mark_parents_ended(child, [parents["a"], parents["c"], new_id()], linked_until=TTL + 9)

    known = stores.dependencies.get(child)
    assert (left, known.open, known.linked_until) == (1, {parents["b"]}, TTL + 9)


def test_nobody_need_have_ended_to_say_that_all_were_told(stores: Any) -> None:
    child, _ = create_child(stores, "a", "b")

    assert stores.dependencies.mark_parents_ended(child, [], linked_until=TTL) == 2
    assert stores.dependencies.mark_parents_ended(child, []) == 2


def test_a_child_of_which_nothing_is_kept_stays_so(stores: Any) -> None:
    """A late end leaves no ghost."""
    nobody = new_id()

    assert stores.dependencies.mark_parents_ended(nobody, [new_id()]) is None
    assert stores.dependencies.mark_parents_ended(nobody, []) is None
    assert stores.dependencies.get(nobody) is None


def test_children_come_by_id_a_page_at_a_time(stores: Any) -> None:
    parent = new_id()
    children = sorted(new_id(NOW + number) for number in range(7))
    for child in children:
        stores.dependencies.link(child, {"p": parent}, run_anyway=False, ttl=TTL)

    first = stores.dependencies.children(parent, limit=3)
    second = stores.dependencies.children(parent, first[-1].child, 3)
    third = stores.dependencies.children(parent, second[-1].child, 3)

    assert [edge.child for edge in (*first, *second, *third)] == children
    assert stores.dependencies.children(parent, third[-1].child) == []


def test_a_hundred_parents(stores: Any) -> None:
    """As many as a job may have: told in five requests, kept in rows that are far from any limit."""
    child, parents = create_child(stores, *(f"{'a' * 60}{number:03}" for number in range(100)))

    assert stores.dependencies.get(child).parents == parents
    assert len(stores.dependencies.get(child).open) == 100
    assert all(stores.dependencies.children(parent) == [DependencyEdge(child, False)] for parent in parents.values())
    assert stores.dependencies.mark_parents_ended(child, list(parents.values())[:99]) == 1


def test_the_parents_of_many(stores: Any) -> None:
    first, second, nobody = create_child(stores, "a"), create_child(stores, "x", "y"), new_id()

    assert stores.dependencies.parents_of([first[0], second[0], nobody]) == dict([first, second])


def test_a_page_goes_with_its_edges_on_both_sides(stores: Any) -> None:
    """A child that is deleted is no longer told of anything; a parent that is deleted tells nobody."""
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


def test_edges_that_dynamodb_leaves_out_are_put_again(dynamo_stores: DynamoStores) -> None:
    """It may take fewer rows than it was given; those that it left are put after a pause, and if it goes on so that is said."""
    child, parents = new_id(), {f"p{number}": new_id() for number in range(30)}
    items = [dynamo_stores.dependencies._items(parent, f"child#{child}", ttl=TTL) for parent in parents.values()]
    table = dynamodb.table_name(STAGE, "job_data")
    left_out: list[Any] = []
    pauses: list[float] = []

    def take_fewer(params: Any, **_: Any) -> Any:
        asked = params["RequestItems"][table]
        left_out[:] = asked[-2:] if len(pauses) < most else []
        return {**params, "RequestItems": {table: asked[: len(asked) - len(left_out)] or asked[:1]}}

    def say_which(parsed: Any, **_: Any) -> None:
        parsed["UnprocessedItems"] = {table: list(left_out)} if left_out else {}

    events = aws.client("dynamodb").meta.events
    events.register("provide-client-params.dynamodb.BatchWriteItem", take_fewer)
    events.register("after-call.dynamodb.BatchWriteItem", say_which)
    try:
        most = 2
        dynamodb.batch_put(items, pauses.append)
        assert len(pauses) == 2
        most = 10**6
        with pytest.raises(Throttled):
            dynamodb.batch_put(items, pauses.append)
    finally:
        events.unregister("provide-client-params.dynamodb.BatchWriteItem", take_fewer)
        events.unregister("after-call.dynamodb.BatchWriteItem", say_which)

    assert all(dynamo_stores.dependencies.children(parent) == [DependencyEdge(child, False)] for parent in parents.values())


def test_every_row_has_an_end(dynamo_stores: DynamoStores) -> None:
    """The child's and the edges live as long as its body; and longer, when it does."""
    child, parents = create_child(dynamo_stores, "a")
    items = dynamo_stores.dependencies._items

    dynamo_stores.dependencies.link(child, parents, run_anyway=False, ttl=TTL + 60)
    dynamo_stores.dependencies.mark_parents_ended(child, [], linked_until=TTL + 60)

    rows = [*items.query(child), *items.query(parents["a"])]
    assert {row.sk: row.ttl for row in rows} == {"parents": TTL + 60, "wait": TTL + 60, f"child#{child}": TTL + 60}
