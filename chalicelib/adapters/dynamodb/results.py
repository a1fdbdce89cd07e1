"""Results of attempts, in the table `job_data`: the items `result#<attempt>` of a job.

Large texts are objects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pynamodb.attributes import BinaryAttribute, BooleanAttribute, UnicodeAttribute

from chalicelib.adapters.compression import INLINE_BYTES, pack, pack_json, unpack, unpack_json
from chalicelib.adapters.decoding import decode, decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.adapters.dynamodb.jobs.item import RecordAttribute
from chalicelib.adapters.s3.blobs import Blobs, key_of
from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.execution.response_cache import CacheLookup
from chalicelib.domain.execution.result import WORKER_LOST, Result
from chalicelib.domain.jobs.job import Usage

PREFIX = "result#"
PLAIN_FIELDS = (
    "generation",
    "status",
    "finish_reason",
    "model",
    "usage",
    "cost",
    "started_at",
    "first_token_at",
    "finished_at",
    "error_code",
    "fallback",
    "looked_up",
    "ttl",
)
WITHOUT_TEXT = ["id", "sk", "gen", "status", "finish", "model", "usage", "cost", "start", "first", "fin", "err", "fallback", "cache", "ttl"]


class ResultItem(Item):
    """The item of one attempt."""

    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    text = BinaryAttribute(legacy_encoding=False, null=True)
    parsed = BinaryAttribute(legacy_encoding=False, null=True)
    same = BooleanAttribute(null=True)  # `parsed` is exactly the text as JSON, so it is not stored twice
    s3 = UnicodeAttribute(null=True)  # the key of the object with the text; then `parsed` is an object, too
    generation = IntAttribute(null=True, attr_name="gen")
    status = UnicodeAttribute(null=True)
    finish_reason = UnicodeAttribute(null=True, attr_name="finish")
    model = UnicodeAttribute(null=True)
    usage = RecordAttribute(Usage, null=True)
    cost = IntAttribute(null=True)
    started_at = IntAttribute(null=True, attr_name="start")
    first_token_at = IntAttribute(null=True, attr_name="first")
    finished_at = IntAttribute(null=True, attr_name="fin")
    error_code = UnicodeAttribute(null=True, attr_name="err")
    fallback = BooleanAttribute(null=True)
    looked_up = RecordAttribute(CacheLookup, null=True, attr_name="cache")
    ttl = IntAttribute(null=True)


class DynamoResults:
    """Units: 1 for each KB after compression, up to 16; then one or two puts of S3 and 1."""

    def __init__(self, stage: str, blobs: Blobs) -> None:
        self._items = bound(ResultItem, stage, "job_data")
        self._blobs = blobs

    def put(self, result: Result, tenant: str) -> None:
        """Keep the result of the later claim, if a durable attempt had several workers.

        Its objects stay, too: their keys have the generation of the claim.
        """
        newer_stays = self._items.generation.does_not_exist() | (self._items.generation <= result.generation)
        if result.is_exact:
            newer_stays |= self._items.finish_reason == WORKER_LOST
        with suppress(ConditionFailed):
            dynamodb.put(self._item_of(result, tenant), newer_stays)

    def put_if_absent(self, result: Result, tenant: str) -> None:
        """Objects get other names than the worker's, so that neither replaces the other."""
        item = self._item_of(result, tenant, "-lost")
        with suppress(ConditionFailed):
            dynamodb.put(item, self._items.id.does_not_exist())

    def _item_of(self, result: Result, tenant: str, suffix: str = "") -> ResultItem:
        text = pack(result.text)
        same = result.parsed is not None and _is_text_of(result.text, result.parsed)
        parsed = None if same or result.parsed is None else pack_json(result.parsed)
        item = self._items(result.job_id, _key(result.attempt), same=same or None, **_plain_fields(result))
        if len(text) + len(parsed or b"") <= INLINE_BYTES:
            item.text, item.parsed = text, parsed
        else:
            item.s3 = key_of(tenant, result.job_id, f"result-{result.attempt}-{result.generation}{suffix}")
            self._blobs.put(item.s3, text, "text/plain; charset=utf-8", result=True)
            if parsed is not None:
                self._blobs.put(_parsed_key(item.s3), parsed, "application/json", result=True)
        return item

    def get(self, job_id: str, attempt: int) -> Result | None:
        item = dynamodb.get(self._items, job_id, _key(attempt))
        return self._result_of(item) if item is not None else None

    def get_many(self, attempts: Sequence[tuple[str, int]]) -> list[Result]:
        keys = [(job_id, _key(attempt)) for job_id, attempt in attempts]
        items = dynamodb.batch_get(self._items, keys, consistent=True)  # otherwise the result of a job that has just ended might be missing
        return [found for found in decode_readable(items, self._result_of) if found is not None]

    def _result_of(self, item: ResultItem) -> Result | None:
        """Return the result; None if its text is no longer kept.

        Raises:
            UnreadableRecord: it cannot be decoded, or names its text in no way that is known here.
        """
        result = _without_text(item)
        packed = item.text if item.s3 is None else self._blobs.get(item.s3)
        if packed is None and item.s3 is None:
            raise UnreadableRecord({item.key_text: "neither text nor the key of an object"})
        if packed is None:
            return None
        parsed = None if item.same else self._parsed(item)

        def build() -> Result:
            text = unpack(packed)
            return replace(result, text=text, parsed=json.loads(text) if item.same else unpack_json(parsed) if parsed is not None else None)

        return decode(item.key_text, build)

    def attempts(self, job_id: str) -> list[Result]:
        rows = self._items.query(job_id, self._items.sk.startswith(PREFIX), consistent_read=True, attributes_to_get=WITHOUT_TEXT)
        return list(decode_readable(rows, _without_text))

    def link(self, job_id: str, attempt: int, seconds: int = 300) -> str | None:
        item = dynamodb.get(self._items, job_id, _key(attempt))
        return self._blobs.presign(item.s3, seconds) if item and item.s3 else None

    def _parsed(self, item: ResultItem) -> bytes | None:
        stored: bytes | None = item.parsed if item.s3 is None else self._blobs.get(_parsed_key(item.s3))
        return stored


@decoded
def _without_text(item: ResultItem) -> Result:
    attempt = int(item.sk.removeprefix(PREFIX))
    stored = {name: getattr(item, name) for name in PLAIN_FIELDS}
    defaults = {"generation": item.generation or 0, "fallback": bool(item.fallback)}
    return Result(job_id=item.id, attempt=attempt, text="", **{**stored, **defaults})


def _plain_fields(result: Result) -> dict[str, Any]:
    """Return the fields that are stored unchanged. A flag is stored only if it is set."""
    return {name: getattr(result, name) for name in PLAIN_FIELDS} | {"fallback": result.fallback or None}


def _is_text_of(text: str, parsed: object) -> bool:
    """Return whether `parsed` is exactly the text as JSON.

    (`1`, `1.0` and `true` are equal in Python and not in JSON.)
    """
    try:
        return json.dumps(json.loads(text)) == json.dumps(parsed)
    except ValueError:
        return False


def _key(attempt: int) -> str:
    return f"{PREFIX}{attempt:04}"


def _parsed_key(key: str) -> str:
    return f"{key}-parsed"
