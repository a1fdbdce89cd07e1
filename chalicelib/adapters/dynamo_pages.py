"""Removing all that is kept of a job beside its head: its rows in `pages`, whatever they are, and its objects."""

from __future__ import annotations

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters import dynamo
from chalicelib.adapters.blobs import Blobs, folder_of
from chalicelib.adapters.dynamo import Item, bound


class PageItem(Item):
    """Any row of a page."""

    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)


class DynamoPages:
    """Units: what the rows hold, once to find them (0.5 for each 4 KB) and once to remove them (1 for each KB); S3 lists once."""

    def __init__(self, stage: str, blobs: Blobs) -> None:
        self._items = bound(PageItem, stage, "pages")
        self._blobs = blobs

    def forget(self, job_id: str, tenant: str) -> None:
        """Rows before objects: a row never names what is not there. Objects are listed, because one may have been left without a row."""
        rows = self._items.query(job_id, consistent_read=True, attributes_to_get=["id", "sk"])
        dynamo.delete_together(list(rows))
        self._blobs.delete_below(folder_of(tenant, job_id))
