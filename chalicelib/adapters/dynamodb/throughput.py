"""Throughput statistics, read from the counters of completed jobs in the table `counters`.

The keys are `speed#<type>#<model>` / `w<ISO year>-<week>`; the consumer that counts jobs adds to
them.
"""

from __future__ import annotations

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb.client import Item, bound, whole_numbers
from chalicelib.adapters.dynamodb.counters import last_part
from chalicelib.domain.metrics.throughput import Throughput, counter_keys, throughput_from
from chalicelib.domain.units import Ms

NOT_COUNTS = ("ttl", "v")  # numbers of an item that are no counts


class CounterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)


class DynamoThroughputStats:
    """Units: 0.5 to read two weeks, for each 4 KB of them and their parts."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CounterItem, stage, "counters")

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        """Read this week and the last, which are neighbours, in one request."""
        (pk, this_week), (_, last_week) = counter_keys(job_type, model, now)
        weeks = self._items.sk.between(last_week, last_part(this_week))
        response = self._items._get_connection().query(pk, range_key_condition=weeks)
        return throughput_from(whole_numbers(raw, NOT_COUNTS) for raw in response["Items"])
