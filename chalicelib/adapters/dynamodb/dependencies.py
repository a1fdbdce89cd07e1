"""Dependencies between jobs, in the table `job_data`.

| partition | sort key | holds |
|---|---|---|
| child | `parents` | all its parents by alias, written once |
| child | `wait` | `open`, the set of parents that have not ended |
| parent | `child#<id>` | the edge to one child |

Ended parents are deleted from `open` one by one. It is a set, because deleting twice is deleting
once, which is not so of a number that is counted down. DynamoDB keeps no empty sets: then the
attribute is gone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from pynamodb.attributes import BooleanAttribute, UnicodeAttribute, UnicodeSetAttribute
from pynamodb.expressions.update import Action

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.domain.jobs.dependencies import DependencyEdge, DependencyRecord

PARENTS = "parents"
WAIT = "wait"
EDGE = "child#"


class DependencyItem(Item):
    """Any of the three items. Each has the attributes that it needs."""

    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    parents = UnicodeAttribute(null=True)  # JSON: alias to job id
    open = UnicodeSetAttribute(null=True)
    linked_until = IntAttribute(null=True, attr_name="linked")
    run_anyway = BooleanAttribute(null=True, attr_name="anyway")  # the child runs even if a parent fails
    ttl = IntAttribute()


class DynamoDependencies:
    """Units, with n parents of some 30 bytes each: put 2, link n + 1, mark_parents_ended 1.

    Each KB beyond the first of an item of the child is 1 more; a page of a hundred edges is 1.5 to
    read.
    """

    def __init__(self, stage: str) -> None:
        self._items = bound(DependencyItem, stage, "job_data")

    def put(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        wait = self._items(child, WAIT, open=set(parents.values()), ttl=ttl)
        dynamodb.batch_put([wait, self._parents_item(child, parents, run_anyway=run_anyway, ttl=ttl)])

    def link(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        edges = [self._items(parent, EDGE + child, run_anyway=run_anyway or None, ttl=ttl) for parent in parents.values()]
        dynamodb.batch_put([*edges, self._parents_item(child, parents, run_anyway=run_anyway, ttl=ttl)])

    def mark_parents_ended(self, child: str, parents: Collection[str], *, linked_until: int | None = None) -> int | None:
        items = self._items
        actions: list[Action] = [items.open.delete(set(parents))] if parents else []
        if linked_until is not None:
            actions += [items.linked_until.set(linked_until), items.ttl.set(linked_until)]
        if not actions:
            record = self.get(child)
            return len(record.open) if record is not None else None
        try:
            after = dynamodb.update(items(child, WAIT), actions, items.id.exists(), "ALL_NEW")
        except ConditionFailed:
            return None
        return len(_open_of(items.from_raw_data(after)))

    def get(self, child: str) -> DependencyRecord | None:
        rows = {row.sk: row for row in dynamodb.batch_get(self._items, [(child, PARENTS), (child, WAIT)], consistent=True)}
        parents, wait = rows.get(PARENTS), rows.get(WAIT)
        if parents is None or wait is None:
            return None
        return DependencyRecord(
            parents=_parents_of(parents)[1],
            open=_open_of(wait),
            run_anyway=bool(parents.run_anyway),
            linked_until=wait.linked_until or 0,
        )

    def parents_of(self, children: Sequence[str]) -> dict[str, dict[str, str]]:
        rows = dynamodb.batch_get(self._items, ((child, PARENTS) for child in children))
        return dict(decode_readable(rows, _parents_of))

    def _parents_item(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> DependencyItem:
        return self._items(child, PARENTS, parents=json.dumps(dict(parents)), run_anyway=run_anyway or None, ttl=ttl)

    def children(self, parent: str, after: str | None = None, limit: int = 100) -> list[DependencyEdge]:
        """Read on where an edge cannot be read: fewer than `limit` edges mean that there are no more."""
        sort_key = self._items.sk
        beyond = sort_key.startswith(EDGE) if after is None else sort_key.between(f"{EDGE}{after}\x00", f"{EDGE}~")
        rows = self._items.query(parent, beyond, consistent_read=True, page_size=limit)
        return list(islice(decode_readable(rows, _edge_of), limit))


@decoded
def _parents_of(item: DependencyItem) -> tuple[str, dict[str, str]]:
    """Return a child, and its parents by alias."""
    return item.id, dict(json.loads(item.parents or "{}"))


@decoded
def _open_of(item: DependencyItem) -> frozenset[str]:
    return frozenset(item.open or ())


@decoded
def _edge_of(item: DependencyItem) -> DependencyEdge:
    return DependencyEdge(item.sk.removeprefix(EDGE), bool(item.run_anyway))
