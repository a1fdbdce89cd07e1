"""Throughput statistics, read from the counters of completed jobs in the table `counters`.

The keys are `speed#<type>#<model>` / `w<ISO year>-<week>`; the consumer that counts jobs adds to
them.
"""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb.client import Item, Raw, bound
from chalicelib.adapters.dynamodb.counters import parts_of
from chalicelib.domain.metrics.throughput import Throughput, counter_keys, throughput_from
from chalicelib.domain.units import Ms

NOT_COUNTS = ("ttl", "v")  # numbers of an item that are no counts


class CounterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)


class DynamoThroughputStats:
    """Units: 0.5 to read each of two weeks and each part that it may have, up to 4 KB each."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CounterItem, stage, "counters")

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        """Read both weeks once.

        If a busy DynamoDB leaves a part unprocessed, the result rests on the others.
        """
        table = self._items._get_connection()
        keys: list[Any] = [{"pk": pk, "sk": sk} for key in counter_keys(job_type, model, now) for pk, sk in parts_of(key)]
        response = table.batch_get_item(keys)
        return throughput_from(_numbers(raw) for raw in response["Responses"].get(table.table_name, []))


def _numbers(raw: Raw) -> dict[str, int]:
    return {name: int(value["N"]) for name, value in raw.items() if "N" in value and name not in NOT_COUNTS}
