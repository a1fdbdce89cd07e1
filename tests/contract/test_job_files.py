"""Files of jobs: visible only when complete, deleted with the job, on the twin and on moto."""

from __future__ import annotations

from typing import Any

import requests

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.s3.files import PART_BYTES
from chalicelib.adapters.stores import DynamoStores
from tests.contract.given import new_id

TYPE = "text/csv; charset=utf-8"


def begun(stores: Any, job_id: str, name: str = "export.csv") -> Any:
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


def test_an_object_is_there_when_it_is_whole(stores: Any) -> None:
    """Piece after piece, and nobody sees it before."""
    job_id = new_id()
    upload = begun(stores, job_id)
    upload.write(b"one,")
    upload.write(b"two\n")

    assert stores.job_files.size("acme", job_id, "export.csv") is None
    assert upload.close() == 8
    assert stores.job_files.size("acme", job_id, "export.csv") == 8
    assert content(stores, job_id) == b"one,two\n"


def test_a_large_object_is_sent_in_parts(stores: Any) -> None:
    """In order, none lost, whatever the pieces were."""
    job_id, whole = new_id(), b"".join(b"%08d" % number for number in range(PART_BYTES // 3))
    upload = begun(stores, job_id)
    for start in range(0, len(whole), 3_000_001):
        upload.write(whole[start : start + 3_000_001])

    assert upload.close() == len(whole)
    assert stores.job_files.size("acme", job_id, "export.csv") == len(whole)
    assert content(stores, job_id) == whole


def test_an_object_that_comes_to_nothing_leaves_nothing(stores: Any) -> None:
    """Not even parts of it, which would be charged."""
    job_id = new_id()
    upload = begun(stores, job_id)
    upload.write(b"x" * (PART_BYTES + 1))
    upload.abort()
    upload.abort()

    assert stores.job_files.size("acme", job_id, "export.csv") is None
    if isinstance(stores, DynamoStores):
        assert "Uploads" not in aws.client("s3").list_multipart_uploads(Bucket=stores.blobs.bucket)


def test_an_object_is_written_again_under_its_name(stores: Any) -> None:
    """The older one stays until the newer one is whole."""
    job_id = new_id()
    first, second = begun(stores, job_id), begun(stores, job_id)
    first.write(b"old")
    first.close()
    second.write(b"newer")

    assert stores.job_files.size("acme", job_id, "export.csv") == 3
    second.close()
    assert stores.job_files.size("acme", job_id, "export.csv") == 5


def test_an_empty_object_is_one(stores: Any) -> None:
    job_id = new_id()

    assert begun(stores, job_id).close() == 0
    assert stores.job_files.size("acme", job_id, "export.csv") == 0


def test_a_name_is_not_the_beginning_of_another(stores: Any) -> None:
    job_id = new_id()
    begun(stores, job_id, "export.json").close()
    begun(stores, job_id, "export.jsonl").write(b"")

    assert stores.job_files.size("acme", job_id, "export.js") is None


def test_objects_go_with_their_job(stores: Any) -> None:
    """Whoever removes all that is kept of it; another job's stay."""
    job_id, other = new_id(), new_id()
    begun(stores, job_id).close()
    begun(stores, other).close()

    stores.job_data.delete_all(job_id, "acme")

    assert stores.job_files.size("acme", job_id, "export.csv") is None
    assert stores.job_files.size("acme", other, "export.csv") == 0
