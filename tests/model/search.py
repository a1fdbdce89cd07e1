# ruff: noqa: N803 - a specification: R is the set of rules, as on paper
"""The search for a violation, and what all models have in common."""

import time
from typing import NamedTuple


class Report(NamedTuple):
    states: int
    steps: int
    violation: str = ""
    trace: tuple = ()
    seconds: float = 0


def explore(model, rules):
    """Visit every reachable state of `model` under `rules`.

    Return the shortest trace to a violation, if there is one.
    """
    started, init = time.time(), model.init()
    index, order, parent, back = {init: 0}, [init], [(-1, "")], [[]]
    steps = at = 0

    def report(violation="", at=0):
        return Report(len(order), steps, violation, trace_to(parent, at), time.time() - started)

    while at < len(order):
        state = order[at]
        if violation := model.check(state, rules):
            return report(violation, at)
        for label, nxt, fault in model.steps(state, rules):
            steps += 1
            to = index.get(nxt)
            if to is None:
                to = index[nxt] = len(order)
                order.append(nxt)
                parent.append((at, label))
                back.append([])
            if not fault:
                back[to].append(at)
        at += 1
    for name, applies, target in model.goals():
        at = first_stuck(order, back, applies, target)
        if at is not None:
            return report(f'STUCK: "{name}" is not reachable without a fault', at)
    return report()


def first_stuck(order, back, applies, target):
    reaches = bytearray(len(order))
    todo = [i for i, state in enumerate(order) if target(state)]
    for i in todo:
        reaches[i] = 1
    while todo:
        for i in back[todo.pop()]:
            if not reaches[i]:
                reaches[i] = 1
                todo.append(i)
    return next((i for i, state in enumerate(order) if not reaches[i] and applies(state)), None)


def trace_to(parent, at):
    labels = []
    while at > 0:
        at, label = parent[at]
        labels.append(label)
    return tuple(reversed(labels))


class Small:
    """A model given by class attributes.

    `State()` is the first state. `rules` can be removed, the rules `given` cannot.
    """

    rules, given = {}, ()

    def init(self):
        return self.State()

    def check(self, s, R):
        return ""

    def goals(self):
        return ()


def put(row, i, value):
    return (*row[:i], value, *row[i + 1 :])
