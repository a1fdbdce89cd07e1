"""Removing all that is kept of a job beside its head: its rows in `pages`, whatever they are, and its objects."""

from __future__ import annotations

import json

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import Item, bound
from chalicelib.adapters.dynamodb.dependencies import PREFIX
from chalicelib.adapters.s3.blobs import Blobs, folder_of


class JobDataItem(Item):
    """Any row of a page; `parents`: the job's parents, each of which has an edge to it."""

    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    parents = UnicodeAttribute(null=True)


class DynamoJobData:
    """Units: what the rows hold, once to find them (0.5 for each 4 KB) and once to remove them (1 for each KB); S3 lists once."""

    def __init__(self, stage: str, blobs: Blobs) -> None:
        self._items = bound(JobDataItem, stage, "job_data")
        self._blobs = blobs

    def delete_all(self, job_id: str, tenant: str) -> None:
        """Rows before objects: a row never names what is not there. Objects are listed, because one may have been left without a row."""
        rows = list(self._items.query(job_id, consistent_read=True, attributes_to_get=["id", "sk", "parents"]))
        parents = [parent for row in rows for parent in json.loads(row.parents or "{}").values()]
        dynamodb.batch_delete([self._items(parent, PREFIX + job_id) for parent in parents])  # before the row that names them
        dynamodb.batch_delete(rows)
        self._blobs.delete_below(folder_of(tenant, job_id))
