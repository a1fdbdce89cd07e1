"""An order in which each node comes after its parents, or the cycle that prevents one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import DependencyCycle
from chalicelib.domain.jobs.topological_order import topological_order

Parents = dict[str, list[str]]


@st.composite
def dags(draw: st.DrawFn) -> Parents:
    """Any graph without a cycle, shuffled. Parents precede their children in a hidden order."""
    names = [f"n{number}" for number in range(draw(st.integers(0, 12)))]
    parents = {name: draw(st.lists(st.sampled_from(names[:at]), max_size=4)) if at else [] for at, name in enumerate(names)}
    return {name: parents[name] for name in draw(st.permutations(names))}


@st.composite
def graphs(draw: st.DrawFn) -> Parents:
    """Any graph, with or without cycles."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 10)))]
    return {name: draw(st.lists(st.sampled_from(names), max_size=3)) for name in names}


@given(dags())
def test_order_contains_each_node_once_after_its_parents(parents: Parents) -> None:
    order = topological_order(parents)

    assert sorted(order) == sorted(parents)
    position = {name: at for at, name in enumerate(order)}
    assert all(position[parent] < position[child] for child, parent_names in parents.items() for parent in parent_names)


@given(graphs())
def test_reported_cycle_is_a_real_cycle(parents: Parents) -> None:
    """If no cycle is reported, the order is valid."""
    cycle, order = cycle_or_order(parents)

    if cycle:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(parent in parents[child] for child, parent in pairwise(cycle))
    else:
        assert all(order.index(parent) < order.index(child) for child, parent_names in parents.items() for parent in parent_names)


def cycle_or_order(parents: Parents) -> tuple[tuple[str, ...], list[str]]:
    """Return the cycle and no order, or no cycle and the order."""
    try:
        return (), topological_order(parents)
    except DependencyCycle as found:
        return found.cycle, []


@given(st.lists(st.text(), unique=True))
def test_independent_nodes_keep_their_order(names: list[str]) -> None:
    assert topological_order({name: [] for name in names}) == names


def test_input_order_is_kept_where_dependencies_allow() -> None:
    assert topological_order({"a": ["c"], "b": [], "c": [], "d": ["b"]}) == ["c", "a", "b", "d"]


def test_parents_outside_the_graph_are_ignored() -> None:
    assert topological_order({"a": ["job_1"], "b": ["a", "a"]}) == ["a", "b"]


def test_self_dependency_is_a_cycle() -> None:
    with pytest.raises(DependencyCycle, match="a -> a"):
        topological_order({"a": ["a"]})


def test_message_of_a_long_cycle_is_truncated() -> None:
    names = [f"n{number}" for number in range(100)]

    with pytest.raises(DependencyCycle) as raised:
        topological_order({name: [names[(at + 1) % 100]] for at, name in enumerate(names)})

    assert len(raised.value.cycle) == 101
    assert len(raised.value.message) < 200


@pytest.mark.parametrize("forward", [True, False])
def test_graphs_of_ten_thousand_nodes_do_not_exhaust_the_stack(forward: bool) -> None:
    """A chain in either direction, and a wide graph with up to 100 parents for each node."""
    chain = {f"n{at}": [f"n{at - 1}"] if at else [] for at in range(10_000)}
    wide = {"root": [], **{f"n{at}": ["root", *(f"n{at - back}" for back in range(1, min(at, 99) + 1))] for at in range(10_000)}}

    for parents in (chain, wide):
        given_order = dict(parents.items() if forward else reversed(parents.items()))
        assert len(topological_order(given_order)) == len(parents)
