"""Who waits for whom, in `pages`: `parents` and `wait` of a child's page, and `child#<id>` in that of each of its parents.

`parents` is written once and says all; `wait` is the set of those that are still open, from which ends are deleted one by one. A set,
because deleting from it twice is deleting once, as counting down is not. DynamoDB keeps no empty sets: then the attribute is gone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from pynamodb.attributes import BooleanAttribute, UnicodeAttribute, UnicodeSetAttribute
from pynamodb.expressions.update import Action

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.jobs.dependencies import DependencyEdge, DependencyRecord

PARENTS = "parents"
WAIT = "wait"
PREFIX = "child#"


class DependencyItem(Item):
    """`parents`: the ids of the parents by their aliases, as JSON. `anyway`: it runs whatever becomes of them."""

    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    parents = UnicodeAttribute(null=True)
    open = UnicodeSetAttribute(null=True)
    linked_until = IntAttribute(null=True, attr_name="linked")
    anyway = BooleanAttribute(null=True)
    ttl = IntAttribute()


class DynamoDependencies:
    """Units, with n parents of some 30 bytes each: put 2, link n + 1, and 1 for each KB beyond
    the first of either row of the child; mark_parents_ended 1 for each KB
    of what is left; a page of a hundred edges is 1.5 to read.
    """

    def __init__(self, stage: str) -> None:
        self._items = bound(DependencyItem, stage, "job_data")

    def put(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        wait = self._items(child, WAIT, open=set(parents.values()), ttl=ttl)
        dynamodb.batch_put([wait, self._names(child, parents, run_anyway=run_anyway, ttl=ttl)])

    def link(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        edges = [self._items(parent, PREFIX + child, anyway=run_anyway or None, ttl=ttl) for parent in parents.values()]
        dynamodb.batch_put([*edges, self._names(child, parents, run_anyway=run_anyway, ttl=ttl)])

    def mark_parents_ended(self, child: str, parents: Collection[str], *, linked_until: int | None = None) -> int | None:
        items = self._items
        actions: list[Action] = [items.open.delete(set(parents))] if parents else []
        if linked_until is not None:
            actions += [items.linked_until.set(linked_until), items.ttl.set(linked_until)]
        if not actions:
            known = self.get(child)
            return len(known.open) if known is not None else None
        try:
            after = dynamodb.update(items(child, WAIT), actions, items.id.exists(), "ALL_NEW")
        except ConditionFailed:
            return None
        return len(items.from_raw_data(after).open or ())

    def get(self, child: str) -> DependencyRecord | None:
        rows = {row.sk: row for row in dynamodb.batch_get(self._items, [(child, PARENTS), (child, WAIT)], consistent=True)}
        names, wait = rows.get(PARENTS), rows.get(WAIT)
        if names is None or wait is None:
            return None
        return DependencyRecord(
            parents=json.loads(names.parents or "{}"),
            open=frozenset(wait.open or ()),
            run_anyway=bool(names.anyway),
            linked_until=wait.linked_until or 0,
        )

    def parents_of(self, children: Sequence[str]) -> dict[str, dict[str, str]]:
        rows = dynamodb.batch_get(self._items, ((child, PARENTS) for child in children))
        return {row.id: json.loads(row.parents or "{}") for row in rows}

    def _names(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> DependencyItem:
        return self._items(child, PARENTS, parents=json.dumps(dict(parents)), anyway=run_anyway or None, ttl=ttl)

    def children(self, parent: str, after: str | None = None, limit: int = 100) -> list[DependencyEdge]:
        sort_key = self._items.sk
        beyond = sort_key.startswith(PREFIX) if after is None else sort_key.between(f"{PREFIX}{after}\x00", f"{PREFIX}~")
        rows = self._items.query(parent, beyond, consistent_read=True, limit=limit, page_size=limit)
        return [DependencyEdge(row.sk.removeprefix(PREFIX), bool(row.anyway)) for row in rows]
