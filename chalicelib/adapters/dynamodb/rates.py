"""Rates, in the table `coordination`.

`rate#<account>#<model>#<window>` / `<minute>` is a frame: `r0` to `r59` and `t0` to `t59`, what was
asked for in each second. `rates` / `<account>#<model>` are the limits of a model, as JSON; they
share one partition, so that one query reads them all.

Frames are read and written with the plain client: the scheduler does so many times a second.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import table_name
from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb.client import Raw, whole_numbers
from chalicelib.adapters.dynamodb.json_record import JsonRecords, Key, known_fields
from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.rate_limit import LimitSource, RateLimit
from chalicelib.domain.limits.sliding_window import SECONDS, Frame, minute_of, minutes_of
from chalicelib.domain.units import Ms

LIMITS = "rates"
FRAME_TTL_SECONDS = 600
SETTLED_MS = 3_000  # after the end of a minute; then nobody's clock counts in it any more
MAX_CACHED = 200  # windows whose earlier frames are kept
LIMIT_TTL_SECONDS = 7 * 86_400  # after the last change; one in use is written each day
NEVER = 4_102_444_800  # the TTL of a limit that an operator has set


class DynamoRates:
    """Units: 1 to take or give back, and 1 to read in the first and last seconds of a minute.

    A frame whose counters are all used is below 1 KB up to 10,000 requests and 20 million tokens a
    minute. The limits cost 0.5 for each 4 KB to read, some ten models, and 1 to write.
    """

    def __init__(self, stage: str) -> None:
        self._table = table_name(stage, "coordination")
        self._records = JsonRecords(stage, "coordination", key=_key_of, encode=asdict, decode=_limit_of, ttl=_ttl)
        self._settled: BoundedCache[str, dict[int, Frame]] = BoundedCache(MAX_CACHED)  # by partition

    def take(self, account: str, model: str, tokens: int, requests: int, at: Ms, window: int = 0) -> tuple[Frame, ...]:
        pk = _partition(account, model, window)
        minute, _ = minute_of(at)
        with aws.translate_errors():
            answer = aws.client("dynamodb").update_item(**self._change(pk, tokens, requests, at), ReturnValues="ALL_NEW")
        return (*self._neighbours(pk, at), _frame_of(minute, answer["Attributes"]))

    def give_back(self, account: str, model: str, tokens: int, requests: int, at: Ms, window: int = 0) -> None:
        with aws.translate_errors():
            aws.client("dynamodb", attempts=1).update_item(**self._change(_partition(account, model, window), -tokens, -requests, at))

    def frames(self, account: str, model: str, at: Ms, window: int = 0) -> tuple[Frame, ...]:
        pk = _partition(account, model, window)
        minute, _ = minute_of(at)
        current = self._read(pk, minute, minute)
        return (*self._neighbours(pk, at), *current.values())

    def limits(self) -> list[RateLimit]:
        return list(decode_readable(self._records.items.query(LIMITS), self._records.record))

    def limit(self, account: str, model: str) -> RateLimit | None:
        return self._records.get(_key(account, model))

    def save_limit(self, seen: RateLimit, new: RateLimit) -> None:
        if seen.version:
            self._records.replace(seen, new)
        elif (stored := self._records.create(new)) != new:
            raise StaleVersion(stored)

    def _change(self, pk: str, tokens: int, requests: int, at: Ms) -> Raw:
        minute, second = minute_of(at)
        counted = {f"{kind}{second}": number for kind, number in (("r", requests), ("t", tokens)) if number}
        added = ", ".join(f"{name} :{name}" for name in counted)
        return {
            "TableName": self._table,
            "Key": {"pk": {"S": pk}, "sk": {"S": str(minute)}},
            "UpdateExpression": f"SET #ttl = :ttl{' ADD ' + added if added else ''}",
            "ExpressionAttributeNames": {"#ttl": "ttl"},
            "ExpressionAttributeValues": {":ttl": _number((minute + 1) * SECONDS + FRAME_TTL_SECONDS)}
            | {f":{name}": _number(value) for name, value in counted.items()},
        }

    def _neighbours(self, pk: str, at: Ms) -> list[Frame]:
        """Return the frames that an ask needs besides the current one. Those that nobody changes any more are read once."""
        needed, settled = minutes_of(at)[:-1], self._settled.get(pk) or {}
        missing = [minute for minute in needed if minute not in settled]
        read = self._read(pk, missing[0], missing[-1]) if missing else {}
        kept = {minute: read.get(minute, Frame(minute)) for minute in missing if at >= (minute + 1) * SECONDS * 1000 + SETTLED_MS}
        if kept:
            self._settled.put(pk, {minute: frame for minute, frame in {**settled, **kept}.items() if minute >= needed[0]})
        found = [settled.get(minute) or read.get(minute) or Frame(minute) for minute in needed]
        return [frame for frame in found if frame != Frame(frame.minute)]

    def _read(self, pk: str, first: int, last: int) -> dict[int, Frame]:
        with aws.translate_errors():
            answer = aws.client("dynamodb").query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
                ExpressionAttributeValues={":pk": {"S": pk}, ":first": {"S": str(first)}, ":last": {"S": str(last)}},
                ConsistentRead=True,
            )
        return {int(item["sk"]["S"]): _frame_of(int(item["sk"]["S"]), item) for item in answer["Items"]}


def _frame_of(minute: int, item: Raw) -> Frame:
    """Return a frame. A give-back whose take was lost leaves a number below zero, which counts as none."""
    numbers = whole_numbers(item, ("pk", "sk", "ttl"))
    requests, tokens = (tuple(max(0, numbers.get(f"{kind}{second}", 0)) for second in range(SECONDS)) for kind in "rt")
    return Frame(minute, requests, tokens)


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _partition(account: str, model: str, window: int) -> str:
    return f"rate#{account}#{model}#{window}"


def _key(account: str, model: str) -> Key:
    return LIMITS, f"{account}#{model}"


def _key_of(limit: RateLimit) -> Key:
    return _key(limit.account, limit.model)


def _limit_of(stored: dict[str, Any]) -> RateLimit:
    known = known_fields(RateLimit, stored)
    source = known.get("source")
    return RateLimit(**{**known, "source": LimitSource(source) if source is not None else None})


def _ttl(limit: RateLimit) -> int:
    if limit.configured_requests or limit.configured_tokens:
        return NEVER
    return max(limit.seen_at or 0, limit.refused_at or 0, limit.blocked_until or 0) // 1000 + LIMIT_TTL_SECONDS
