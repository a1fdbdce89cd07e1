"""Objects that jobs make, in the bucket of the stage."""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.s3.blobs import Blobs, key_of, s3
from chalicelib.domain.errors import Unavailable

PART_BYTES = 8 * 1024 * 1024  # S3 takes none below 5 MB, except the last


class S3Files:
    """Calls: one for a small object; three and one for each 8 MB of a larger one."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def create(self, tenant: str, job_id: str, name: str, content_type: str) -> S3FileWriter:
        return S3FileWriter(self._blobs.bucket, key_of(tenant, job_id, name), content_type)

    def size(self, tenant: str, job_id: str, name: str) -> int | None:
        """Listed and not asked for: a missing object is then no error, and no permission looks like one."""
        key = key_of(tenant, job_id, name)
        with aws.translate_errors():
            found = s3().list_objects_v2(Bucket=self._blobs.bucket, Prefix=key).get("Contents", [])
        return next((int(one["Size"]) for one in found if one["Key"] == key), None)

    def link(self, tenant: str, job_id: str, name: str, seconds: int) -> str:
        wanted = {"Bucket": self._blobs.bucket, "Key": key_of(tenant, job_id, name)}
        wanted["ResponseContentDisposition"] = f'attachment; filename="{job_id}-{name}"'
        url: str = s3().generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)
        return url


class S3FileWriter:
    """A part that was not acknowledged is still here, so that adding nothing more sends it again, under its number."""

    def __init__(self, bucket: str, key: str, content_type: str) -> None:
        self._object = {"Bucket": bucket, "Key": key}
        self._content_type = content_type
        self._waiting = bytearray()
        self._sent = 0
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= PART_BYTES:
            self._send_part(PART_BYTES)

    def close(self) -> int:
        size = self._sent + len(self._waiting)
        with aws.translate_errors():
            if self._upload_id is None:
                s3().put_object(**self._object, Body=bytes(self._waiting), ContentType=self._content_type)
                return size
        if self._waiting:
            self._send_part(len(self._waiting))
        with aws.translate_errors():
            answer = s3().complete_multipart_upload(**self._object, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts})
        if "ETag" not in answer:  # S3 may answer 200 and then say that it failed
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
                begun = s3().create_multipart_upload(**self._object, ContentType=self._content_type)
                self._upload_id = str(begun["UploadId"])
            number = len(self._parts) + 1
            answer = s3().upload_part(
                **self._object, UploadId=self._upload_id, PartNumber=number, Body=bytes(memoryview(self._waiting)[:size])
            )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._sent += size
        del self._waiting[:size]
