"""The measured speeds: counters of the table `ledger`, of which each attribute that is a number was added up by the counting projection."""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamo import Item, Raw, bound
from chalicelib.domain.job import Ms
from chalicelib.domain.speed import Speed, places, speed

NO_COUNTS = ("ttl", "v")  # when it goes, and how often it was changed


class CounterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)


class DynamoSpeeds:
    """Units: half a read for each of two weeks, up to 4 KB."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CounterItem, stage, "ledger")

    def get(self, job_type: str, model: str, now: Ms) -> Speed:
        """A key that DynamoDB leaves out because it is busy is a week less: what is said rests on the other."""
        table = self._items._get_connection()
        keys: list[Any] = [{"pk": pk, "sk": sk} for pk, sk in places(job_type, model, now)]
        answer = table.batch_get_item(keys)
        return speed(_numbers(raw) for raw in answer["Responses"].get(table.table_name, []))


def _numbers(raw: Raw) -> dict[str, int]:
    return {name: int(value["N"]) for name, value in raw.items() if "N" in value and name not in NO_COUNTS}
