"""The measured speeds: counters of the table `ledger`, of which each attribute that is a number was added up by the counting projection."""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb.client import Item, Raw, bound
from chalicelib.domain.metrics.throughput import Throughput, counter_keys, throughput_from
from chalicelib.domain.units import Ms

NO_COUNTS = ("ttl", "v")  # when it goes, and how often it was changed


class CounterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)


class DynamoThroughputStats:
    """Units: half a read for each of two weeks, up to 4 KB."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CounterItem, stage, "counters")

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        """A key that DynamoDB leaves out because it is busy is a week less: what is said rests on the other."""
        table = self._items._get_connection()
        keys: list[Any] = [{"pk": pk, "sk": sk} for pk, sk in counter_keys(job_type, model, now)]
        answer = table.batch_get_item(keys)
        return throughput_from(_numbers(raw) for raw in answer["Responses"].get(table.table_name, []))


def _numbers(raw: Raw) -> dict[str, int]:
    return {name: int(value["N"]) for name, value in raw.items() if "N" in value and name not in NO_COUNTS}
