"""Read several shards of a partition of an index as one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import isqrt
from typing import Any

from chalicelib.adapters.dynamodb.jobs.item import JobItem

ShardsOf = Callable[[str], int]  # in how many shards the indexes may have the jobs of a tenant


def query_shards(
    index: Any,
    keys: Sequence[str],
    condition: Any,
    limit: int,
    order: Callable[[JobItem], str],
    *,
    newest_first: bool = False,
) -> Iterator[JobItem]:
    """Yield the first `limit` items of all shards, in the order of their sort keys.

    One request for one shard. Of several each is asked for its share and some more, and again only if
    that was not enough: jobs are spread evenly.

    Args:
        order: returns the sort key of an item.
    """
    size = limit if len(keys) == 1 else min(limit, limit // len(keys) + isqrt(limit) + 1)
    forward = False if newest_first else None
    shards = [index.query(key, condition, scan_index_forward=forward, limit=limit, page_size=size) for key in keys]
    return islice(heapq.merge(*shards, key=order, reverse=newest_first), limit) if len(keys) > 1 else shards[0]
