"""Object storage, for texts that are too large for a table."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import bucket_name
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.files.object_retention import JOBS_FOLDER, RESULT_TAG

RESULT_TAGGING = "=".join(RESULT_TAG)  # as S3 wants it
READ_TIMEOUT = 10.0  # seconds; megabytes take longer than items


class Blobs:
    """The bucket of a stage.

    Its name contains the account id, which is requested once, at the first use.
    """

    def __init__(self, stage: str, account: str | None = None) -> None:
        self._stage = stage
        self._account = account
        self._lock = threading.Lock()

    @property
    def bucket(self) -> str:
        with self._lock:
            if self._account is None:
                with aws.translate_errors():
                    self._account = str(aws.client("sts").get_caller_identity()["Account"])
            return bucket_name(self._stage, self._account)

    def put(self, key: str, data: bytes, content_type: str, *, result: bool = False) -> None:
        """Store gzipped `data`.

        A key is only ever written with the same content, so a repetition is harmless.

        Args:
            result: the object is removed as early as results are; otherwise as late as job specs.
        """
        tags = {"Tagging": RESULT_TAGGING} if result else {}
        with aws.translate_errors():
            s3().put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=content_type, ContentEncoding="gzip", **tags)

    def get(self, key: str) -> bytes | None:
        """Return the gzipped data; None if the object does not exist (any more)."""
        client = s3()
        with aws.translate_errors():
            try:
                data: bytes = client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except client.exceptions.NoSuchKey:
                return None
        return data

    def open(self, key: str) -> Any:
        """Return S3's response, `Body` unread; None if the object does not exist (any more)."""
        client = s3()
        with aws.translate_errors():
            try:
                return client.get_object(Bucket=self.bucket, Key=key)
            except client.exceptions.NoSuchKey:
                return None

    def delete_below(self, folder: str) -> None:
        """Delete all objects below a folder, a thousand with each two calls.

        Raises:
            Unavailable: S3 did not delete some of them.
        """
        client = s3()
        with aws.translate_errors():
            while keys := [{"Key": found["Key"]} for found in self._first_page(folder)]:
                failed = client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", [])
                if failed:
                    raise Unavailable(f"S3 did not delete {len(failed)} of {len(keys)} objects ({failed[0].get('Code')}). Try again.")

    def _first_page(self, folder: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = s3().list_objects_v2(Bucket=self.bucket, Prefix=folder).get("Contents", [])
        return listed

    def presign(self, key: str, seconds: int = 300) -> str:
        """Return a link that lets its holder read the object for `seconds`."""
        url: str = s3().generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=seconds)
        return url

    def presign_put(self, params: dict[str, Any], seconds: int) -> str:
        """Return a link that lets its holder write one object for `seconds`.

        `params`: its key and the required headers.
        """
        url: str = s3().generate_presigned_url("put_object", Params={"Bucket": self.bucket, **params}, ExpiresIn=seconds)
        return url


def key_of(tenant: str, job_id: str, name: str) -> str:
    """Return the key of an object of a job."""
    return f"{folder_of(tenant, job_id)}{name}"


def folder_of(tenant: str, job_id: str) -> str:
    """Return the folder of a job's objects.

    It starts with two digits of a hash, because S3 limits the request rate of a prefix. It ends
    with the whole id and a slash, so it contains no other job's objects.
    """
    return f"{JOBS_FOLDER}{hashlib.sha256(job_id.encode()).hexdigest()[:2]}/{tenant}/{job_id}/"


def s3() -> Any:
    """Return the client of S3, with a longer timeout and signatures that newer regions accept."""
    return aws.client("s3", read_timeout=READ_TIMEOUT, signature="s3v4")
