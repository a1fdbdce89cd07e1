"""What Chalice has deployed of a stage, kept in the stage's bucket, and the lock of a deployment.

Chalice keeps in a file which APIs and event sources it made. A machine without the file would make
them again, under other addresses. So the file is fetched before Chalice runs and stored afterwards,
also when Chalice failed, and only one machine at a time deploys a stage.
"""

from __future__ import annotations

import getpass
import json
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from infra.chalice_config import CHALICE_FOLDER
from infra.cloud import Cloud

FOLDER = "deployment/"  # in the bucket; no function may read or write it
RECORD, LOCK = FOLDER + "chalice.json", FOLDER + "lock.json"
LOCK_TIME = timedelta(hours=1)  # longer than any deployment takes; afterwards the next one takes the lock over
TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
ABSENT = ("NoSuchKey", "404")


class StageLocked(RuntimeError):
    """Another machine deploys the stage; the message says which, since when, and what to do."""


class RecordMissing(RuntimeError):
    """The stage has functions, but nobody knows any more what Chalice has made."""


def record_file(stage: str) -> Path:
    """Where Chalice keeps its record in this checkout."""
    return CHALICE_FOLDER / "deployed" / f"{stage}.json"


@contextmanager
def shared_record(cloud: Cloud, bucket: str) -> Iterator[None]:
    """Use the stage's record in this checkout, and store it again at the end, also after an error.

    Raises:
        RecordMissing: the stage is deployed, but neither bucket nor checkout has its record.
    """
    client, file = cloud.client("s3"), record_file(cloud.stage)
    stored = _read(client, bucket, RECORD)
    if stored is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stored[0])
    elif not file.exists() and _has_functions(cloud):
        raise RecordMissing(
            f"{cloud.stage} is deployed, but neither its bucket nor this checkout has the record of what Chalice made. Deploy it once from "
            f"the checkout that has {file.relative_to(CHALICE_FOLDER.parent)}; afterwards every machine can."
        )
    try:
        yield
    finally:
        if file.exists() and file.read_bytes() != (stored or (b"", ""))[0]:
            client.put_object(Bucket=bucket, Key=RECORD, Body=file.read_bytes(), ContentType="application/json")


@contextmanager
def exclusive(cloud: Cloud, bucket: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[None]:
    """Hold the lock of the stage's deployments.

    Raises:
        StageLocked: another deployment holds it, and its time is not over.
    """
    client, since = cloud.client("s3"), now()
    lock = {"id": uuid.uuid4().hex, "holder": holder(), "since": since.isoformat(), "until": (since + LOCK_TIME).isoformat()}
    _take(client, bucket, lock, since)
    try:
        yield
    finally:
        held = _read(client, bucket, LOCK)
        if held is not None and json.loads(held[0])["id"] == lock["id"]:
            client.delete_object(Bucket=bucket, Key=LOCK)


def holder() -> str:
    """Who deploys, for the message to others."""
    return f"{getpass.getuser()}@{platform.node()}"


def _take(client: Any, bucket: str, lock: dict[str, str], now: datetime) -> None:
    if _put(client, bucket, lock, IfNoneMatch="*"):
        return
    found = _read(client, bucket, LOCK)
    if found is None:
        taken = _put(client, bucket, lock, IfNoneMatch="*")  # it was given back just now
    else:
        held, version = json.loads(found[0]), found[1]
        if datetime.fromisoformat(held["until"]) > now:
            raise StageLocked(
                f"{held['holder']} has been deploying this stage since {held['since'][:19]} UTC. Wait until that is done. If it has died, "
                f"delete s3://{bucket}/{LOCK}, or deploy after {held['until'][:19]} UTC."
            )
        taken = _put(client, bucket, lock, IfMatch=version)
    if not taken:
        raise StageLocked("Another machine has just begun to deploy this stage. Wait until that is done.")


def _put(client: Any, bucket: str, lock: dict[str, str], **condition: str) -> bool:
    """Write the lock on a condition. Returns whether it held."""
    try:
        client.put_object(Bucket=bucket, Key=LOCK, Body=json.dumps(lock).encode(), ContentType="application/json", **condition)
    except ClientError as error:
        if error.response["Error"]["Code"] in TAKEN:
            return False
        raise
    return True


def _read(client: Any, bucket: str, key: str) -> tuple[bytes, str] | None:
    """An object and its ETag; None if it does not exist."""
    try:
        found = client.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ABSENT:
            return None
        raise
    return found["Body"].read(), found["ETag"]


def _has_functions(cloud: Cloud) -> bool:
    client = cloud.client("lambda")
    try:
        client.get_function_configuration(FunctionName=f"headrace-{cloud.stage}")
    except client.exceptions.ResourceNotFoundException:
        return False
    return True
