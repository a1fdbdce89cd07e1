"""Throughput statistics, read from the counters of completed jobs in the table `counters`.

The keys are `speed#<type>#<model>` / `w<ISO year>-<week>`; the consumer that counts jobs adds to
them.
"""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb.client import Item, bound, whole_numbers
from chalicelib.domain.metrics.throughput import Throughput, counter_keys, throughput_from
from chalicelib.domain.units import Ms

NOT_COUNTS = ("ttl", "v")  # numbers of an item that are no counts


class CounterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)


class DynamoThroughputStats:
    """Units: 0.5 to read each of two weeks, up to 4 KB."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CounterItem, stage, "counters")

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        """Read both weeks once.

        If a busy DynamoDB leaves one unprocessed, the result rests on the other.
        """
        table = self._items._get_connection()
        keys: list[Any] = [{"pk": pk, "sk": sk} for pk, sk in counter_keys(job_type, model, now)]
        response = table.batch_get_item(keys)
        return throughput_from(whole_numbers(raw, NOT_COUNTS) for raw in response["Responses"].get(table.table_name, []))
