"""Deletion of a job's items in the table `job_data` and of its objects."""

from __future__ import annotations

import json

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import Item, bound, decoded
from chalicelib.adapters.dynamodb.dependencies import EDGE
from chalicelib.adapters.s3.blobs import Blobs, folder_of


class JobDataItem(Item):
    """Any item of a job's partition.

    `parents` are in one of them, and each parent has an edge to the job.
    """

    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    parents = UnicodeAttribute(null=True)


class DynamoJobData:
    """Units: 0.5 for each 4 KB of items to find them, 1 for each KB to delete them; one list of S3."""

    def __init__(self, stage: str, blobs: Blobs) -> None:
        self._items = bound(JobDataItem, stage, "job_data")
        self._blobs = blobs

    def delete_all(self, job_id: str, tenant: str) -> None:
        """Delete items before objects, so that no item names an absent object.

        Objects are listed by their folder, because a crash may have left one that no item names.
        Parents that cannot be read keep their edges, which expire: an edge to no job does nothing.
        """
        rows = list(self._items.query(job_id, consistent_read=True, attributes_to_get=["id", "sk", "parents"]))
        parents = [parent for found in decode_readable(rows, _parents_of) for parent in found]
        dynamodb.batch_delete([self._items(parent, EDGE + job_id) for parent in parents])  # before the item that names the parents
        dynamodb.batch_delete(rows)
        self._blobs.delete_below(folder_of(tenant, job_id))


@decoded
def _parents_of(item: JobDataItem) -> list[str]:
    return [str(parent) for parent in json.loads(item.parents or "{}").values()]
