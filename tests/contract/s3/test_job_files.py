"""Files of jobs: visible only when complete, deleted with the job, on the twin and on moto."""

from __future__ import annotations

from typing import Any

import requests

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.s3.files import PART_BYTES
from chalicelib.adapters.stores import DynamoStores
from tests.kit.records import new_id

TYPE = "text/csv; charset=utf-8"


def create_file(stores: Any, job_id: str, name: str = "export.csv") -> Any:
    return stores.job_files.create("acme", job_id, name, TYPE)


def content(stores: Any, job_id: str, name: str = "export.csv") -> bytes:
    """What a client gets at the link."""
    link = stores.job_files.link("acme", job_id, name, 60)
    if not isinstance(stores, DynamoStores):
        return bytes(stores.job_files.kept["acme", job_id, name])
    answer = requests.get(link, timeout=10)
    assert answer.headers["Content-Type"] == TYPE
    assert f"{job_id}-{name}" in answer.headers["Content-Disposition"]
    return bytes(answer.content)


def test_file_is_visible_only_after_close(stores: Any) -> None:
    job_id = new_id()
    upload = create_file(stores, job_id)
    upload.write(b"one,")
    upload.write(b"two\n")

    assert stores.job_files.size("acme", job_id, "export.csv") is None
    assert upload.close() == 8
    assert stores.job_files.size("acme", job_id, "export.csv") == 8
    assert content(stores, job_id) == b"one,two\n"


def test_large_file_round_trips(stores: Any) -> None:
    """Uploaded parts keep their order, whatever the sizes of the writes."""
    job_id, whole = new_id(), b"".join(b"%08d" % number for number in range(PART_BYTES // 3))
    upload = create_file(stores, job_id)
    for start in range(0, len(whole), 3_000_001):
        upload.write(whole[start : start + 3_000_001])

    assert upload.close() == len(whole)
    assert stores.job_files.size("acme", job_id, "export.csv") == len(whole)
    assert content(stores, job_id) == whole


def test_aborted_file_leaves_nothing(stores: Any) -> None:
    """Parts that stay behind would be charged."""
    job_id = new_id()
    upload = create_file(stores, job_id)
    upload.write(b"x" * (PART_BYTES + 1))
    upload.abort()
    upload.abort()

    assert stores.job_files.size("acme", job_id, "export.csv") is None
    if isinstance(stores, DynamoStores):
        assert "Uploads" not in aws.client("s3").list_multipart_uploads(Bucket=stores.blobs.bucket)


def test_rewritten_file_replaces_the_old_one_on_close(stores: Any) -> None:
    job_id = new_id()
    first, second = create_file(stores, job_id), create_file(stores, job_id)
    first.write(b"old")
    first.close()
    second.write(b"newer")

    assert stores.job_files.size("acme", job_id, "export.csv") == 3
    second.close()
    assert stores.job_files.size("acme", job_id, "export.csv") == 5


def test_empty_file_is_stored(stores: Any) -> None:
    job_id = new_id()

    assert create_file(stores, job_id).close() == 0
    assert stores.job_files.size("acme", job_id, "export.csv") == 0


def test_file_is_not_found_by_a_prefix_of_its_name(stores: Any) -> None:
    job_id = new_id()
    create_file(stores, job_id, "export.json").close()
    create_file(stores, job_id, "export.jsonl").write(b"")

    assert stores.job_files.size("acme", job_id, "export.js") is None


def test_deleting_the_data_of_a_job_deletes_its_files(stores: Any) -> None:
    """Files of other jobs stay."""
    job_id, other = new_id(), new_id()
    create_file(stores, job_id).close()
    create_file(stores, other).close()

    stores.job_data.delete_all(job_id, "acme")

    assert stores.job_files.size("acme", job_id, "export.csv") is None
    assert stores.job_files.size("acme", other, "export.csv") == 0
