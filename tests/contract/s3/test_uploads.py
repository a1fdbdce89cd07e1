"""Uploads through signed links, in memory and in S3 (moto)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from botocore.exceptions import ReadTimeoutError
from ulid import ULID

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.files.upload import Upload, object_key

DATA = "prompt\r\nSay hé\r\n".encode()


def new_upload() -> Upload:
    return Upload(id=f"upload_{ULID()}", tenant="acme", user="ann@example.com", content_type="text/csv", size=len(DATA))


def put(stores: Any, url: str, data: bytes, content_type: str = "text/csv") -> None:
    if isinstance(stores, InMemoryAdapters):
        stores.uploads.put(url, data, content_type)
    else:
        requests.put(url, data=data, headers={"Content-Type": content_type}, timeout=5).raise_for_status()


def test_upload_is_read_back_in_pieces(stores: Any) -> None:
    upload = new_upload()

    put(stores, stores.uploads.sign(upload, 900), DATA)
    opened = stores.uploads.open(upload.id, "acme", "ann@example.com")

    assert (opened.content_type, opened.size) == ("text/csv", len(DATA))
    assert b"".join(opened.pieces) == DATA


def test_signed_upload_without_content_is_not_found(stores: Any) -> None:
    upload = new_upload()

    stores.uploads.sign(upload, 900)

    assert stores.uploads.open(upload.id, "acme", "ann@example.com") is None


@pytest.mark.parametrize(("tenant", "user"), [("other", "ann@example.com"), ("acme", "bob")])
def test_upload_is_not_found_by_another_tenant_or_user(stores: Any, tenant: str, user: str) -> None:
    upload = new_upload()
    put(stores, stores.uploads.sign(upload, 900), DATA)

    assert stores.uploads.open(upload.id, tenant, user) is None


class TestS3:
    def test_signed_link_is_bound_to_object_type_size_and_expiry(self, dynamo_stores: DynamoStores) -> None:
        upload = new_upload()

        url = urlsplit(dynamo_stores.uploads.sign(upload, 900))
        query = parse_qs(url.query)

        assert url.path == f"/{object_key(upload.id, 'acme', 'ann@example.com')}"
        assert query["X-Amz-SignedHeaders"] == ["content-length;content-type;host"]
        assert query["X-Amz-Expires"] == ["900"]
        assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]

    def test_signature_of_a_link_holds_for_one_length_only(self, dynamo_stores: DynamoStores, monkeypatch: pytest.MonkeyPatch) -> None:
        """S3 signs the headers that it received in the same way, so a PUT of another length has another signature."""
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_: datetime(2026, 11, 22, tzinfo=UTC))
        upload = new_upload()

        links = [dynamo_stores.uploads.sign(replace(upload, size=size), 900) for size in (12, 12, 13)]
        first, again, longer = (parse_qs(urlsplit(link).query)["X-Amz-Signature"] for link in links)

        assert first == again
        assert first != longer

    def test_signed_link_uses_the_regional_host(self, dynamo_stores: DynamoStores) -> None:
        """A new bucket is found at no other host, and a redirect would break the signature."""
        s3 = aws.client("s3", region="eu-central-1", signature="s3v4")

        url = s3.generate_presigned_url("put_object", Params={"Bucket": "headrace-dev-content-1", "Key": "u/1"})

        assert urlsplit(url).hostname == "headrace-dev-content-1.s3.eu-central-1.amazonaws.com"

    def test_signed_link_on_an_emulator_is_path_style(self, dynamo_stores: DynamoStores) -> None:
        s3 = aws.client("s3", endpoint_url="http://127.0.0.1:4566", signature="s3v4")

        url = s3.generate_presigned_url("put_object", Params={"Bucket": "b", "Key": "u/1"})

        assert url.startswith("http://127.0.0.1:4566/b/u/1?")

    def test_interrupted_download_raises_and_closes_the_body(self, dynamo_stores: DynamoStores) -> None:
        class Breaking:
            closed = False

            def iter_chunks(self, _: int) -> Any:
                yield b"prompt\n"
                raise ReadTimeoutError(endpoint_url="https://s3")

            def close(self) -> None:
                self.closed = True

        from chalicelib.adapters.s3.uploads import _pieces

        body = Breaking()
        with pytest.raises(Unavailable):
            list(_pieces(body))
        assert body.closed
