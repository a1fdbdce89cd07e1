"""Object storage: texts that are too large for a table."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.domain.errors import Unavailable

READ_TIMEOUT = 10.0  # megabytes take longer than rows


class Blobs:
    """The bucket of a stage. Its name holds the account's id, which is asked for once, when the first text needs it."""

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
            return f"headrace-{self._stage}-content-{self._account}"

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Keep gzipped `data`. Writing the same key again is harmless: what is kept under one never differs."""
        with aws.translate_errors():
            s3().put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=content_type, ContentEncoding="gzip")

    def get(self, key: str) -> bytes | None:
        """The gzipped data; None if nothing is kept there (any more)."""
        client = s3()
        with aws.translate_errors():
            try:
                data: bytes = client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except client.exceptions.NoSuchKey:
                return None
        return data

    def open(self, key: str) -> Any:
        """S3's answer, its `Body` not read yet; None if nothing is kept there (any more)."""
        client = s3()
        with aws.translate_errors():
            try:
                return client.get_object(Bucket=self.bucket, Key=key)
            except client.exceptions.NoSuchKey:
                return None

    def delete_below(self, folder: str) -> None:
        """Delete all that is kept below a folder. Deleting nothing succeeds."""
        client = s3()
        with aws.translate_errors():
            while keys := [{"Key": found["Key"]} for found in self._some(folder)]:
                failed = client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", [])
                if failed:
                    raise Unavailable(f"S3 did not delete {len(failed)} of {len(keys)} objects ({failed[0].get('Code')}). Try again.")

    def _some(self, folder: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = s3().list_objects_v2(Bucket=self.bucket, Prefix=folder).get("Contents", [])
        return listed

    def presign(self, key: str, seconds: int = 300) -> str:
        """An address from which anybody who has it may read the text for some time."""
        url: str = s3().generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=seconds)
        return url

    def presign_put(self, asked: dict[str, Any], seconds: int) -> str:
        """An address to which anybody who has it may write one object for some time: `asked` is its key, and the headers it must have."""
        url: str = s3().generate_presigned_url("put_object", Params={"Bucket": self.bucket, **asked}, ExpiresIn=seconds)
        return url


def key_of(tenant: str, job_id: str, name: str) -> str:
    """Two digits of a hash first, because S3 bounds requests by prefix."""
    return f"{folder_of(tenant, job_id)}{name}"


def folder_of(tenant: str, job_id: str) -> str:
    """Where all objects of a job are. It ends with the job's whole id and a slash, so it holds no other job's."""
    return f"p/{hashlib.sha256(job_id.encode()).hexdigest()[:2]}/{tenant}/{job_id}/"


def s3() -> Any:
    """The client of S3, patient enough for megabytes, whose links newer regions take."""
    return aws.client("s3", read_timeout=READ_TIMEOUT, signature="s3v4")
