"""Files that jobs write, in the bucket of the stage."""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.s3.blobs import RESULT_TAGGING, Blobs, key_of, s3
from chalicelib.domain.errors import Unavailable

PART_BYTES = 8 * 1024 * 1024  # S3 accepts no smaller part than 5 MB, except the last


class S3Files:
    """Calls: 1 for a small file; 3, and 1 for each 8 MB, for a larger one."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def create(self, tenant: str, job_id: str, name: str, content_type: str) -> S3FileWriter:
        return S3FileWriter(self._blobs.bucket, key_of(tenant, job_id, name), content_type)

    def size(self, tenant: str, job_id: str, name: str) -> int | None:
        """List the key. In a HEAD request an absent file and a missing permission look the same."""
        key = key_of(tenant, job_id, name)
        with aws.translate_errors():
            found = s3().list_objects_v2(Bucket=self._blobs.bucket, Prefix=key).get("Contents", [])
        return next((int(one["Size"]) for one in found if one["Key"] == key), None)

    def link(self, tenant: str, job_id: str, name: str, seconds: int) -> str:
        params = {"Bucket": self._blobs.bucket, "Key": key_of(tenant, job_id, name)}
        params["ResponseContentDisposition"] = f'attachment; filename="{job_id}-{name}"'
        url: str = s3().generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)
        return url


class S3FileWriter:
    """Buffers data until a part is full.

    A part whose upload failed stays in the buffer: `write(b"")` sends it again.
    """

    def __init__(self, bucket: str, key: str, content_type: str) -> None:
        self._object = {"Bucket": bucket, "Key": key}
        self._content_type = content_type
        self._buffer = bytearray()
        self._sent = 0
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= PART_BYTES:
            self._send_part(PART_BYTES)

    def close(self) -> int:
        size = self._sent + len(self._buffer)
        with aws.translate_errors():
            if self._upload_id is None:
                s3().put_object(**self._object, Body=bytes(self._buffer), ContentType=self._content_type, Tagging=RESULT_TAGGING)
                return size
        if self._buffer:
            self._send_part(len(self._buffer))
        with aws.translate_errors():
            response = s3().complete_multipart_upload(**self._object, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts})
        if "ETag" not in response:  # S3 may send 200 and then report a failure in the body
            raise Unavailable("S3 did not put the parts of an object together. Try again.")
        return size

    def abort(self) -> None:
        if self._upload_id is None:
            return
        upload_id, self._upload_id = self._upload_id, None
        with aws.translate_errors():
            s3().abort_multipart_upload(**self._object, UploadId=upload_id)

    def _send_part(self, size: int) -> None:
        with aws.translate_errors():
            if self._upload_id is None:
                created = s3().create_multipart_upload(**self._object, ContentType=self._content_type, Tagging=RESULT_TAGGING)
                self._upload_id = str(created["UploadId"])
            number = len(self._parts) + 1
            response = s3().upload_part(
                **self._object, UploadId=self._upload_id, PartNumber=number, Body=bytes(memoryview(self._buffer)[:size])
            )
        self._parts.append({"PartNumber": number, "ETag": response["ETag"]})
        self._sent += size
        del self._buffer[:size]
