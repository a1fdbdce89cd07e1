"""`POST /uploads`, and the files and batches that are read from uploads."""

from __future__ import annotations

import pytest

from chalicelib import bootstrap
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import InvalidRequest, TooLarge, UploadNotFound
from chalicelib.domain.files.upload import MAX_BYTES, Upload
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.requests.batch_source import batch_source
from chalicelib.entrypoints.http.server import ApiRequest
from chalicelib.services.files.uploads import open_upload
from tests.kit.http import Api


def caller(user: str = "alice", tenant: str = "acme") -> Caller:
    return Caller(tenant=tenant, user=user, role=Role.USER, key_id="key", key_hash="hash")


def test_a_new_upload_returns_all_fields_needed_to_send_the_file(api: Api) -> None:
    answer = api.call("POST", "/uploads", {"content_type": "application/x-ndjson", "size": 12})

    assert answer.status == 201
    assert answer.json["upload_id"].startswith("upload_")
    assert answer.json["url"]
    assert answer.json["method"] == "PUT"
    assert answer.json["headers"] == {"Content-Type": "application/x-ndjson"}
    assert answer.json["max_bytes"] == MAX_BYTES
    assert answer.json["expires_at"] == rfc3339(api.container.clock.now() + 15 * 60_000)


def test_an_upload_can_be_opened_only_by_its_owner(api: Api) -> None:
    upload_id = upload_csv(api, b"prompt\nhello\n")

    opened = open_upload(api.container.uploads, caller(), upload_id)

    assert b"".join(opened.pieces) == b"prompt\nhello\n"
    for other in (caller("bob"), caller(tenant="other")):
        with pytest.raises(UploadNotFound, match="removed after two days"):
            open_upload(api.container.uploads, other, upload_id)


@pytest.mark.parametrize("upload_id", ["upload_nonsense", "", "../p/00/acme", f"upload_{'0' * 26}"])
def test_an_invalid_or_unknown_upload_id_is_not_found(api: Api, upload_id: str) -> None:
    with pytest.raises(UploadNotFound) as caught:
        open_upload(api.container.uploads, caller(), upload_id)
    assert caught.value.code == "upload_not_found"


def test_an_upload_over_50_mb_is_refused_before_and_after_sending(api: Api) -> None:
    refused = api.call("POST", "/uploads", {"size": MAX_BYTES + 1})
    large = Upload(id=f"upload_{'0' * 26}", tenant="acme", user="alice", content_type="text/csv", size=MAX_BYTES + 1)
    api.container.uploads.put(api.container.uploads.sign(large, 900), bytes(MAX_BYTES + 1), "text/csv")

    assert (refused.status, refused.json["error"]["code"]) == (413, "too_large")
    with pytest.raises(TooLarge, match="50 MB"):
        open_upload(api.container.uploads, caller(), large.id)


def test_a_json_upload_over_4_mb_is_refused_with_the_formats_for_it(api: Api) -> None:
    refused = api.call("POST", "/uploads", {"content_type": "application/json", "size": 4_000_001})

    assert refused.status == 413
    assert "JSON lines" in refused.json["error"]["message"]


def test_a_file_of_another_size_than_announced_is_refused_by_the_link(api: Api) -> None:
    upload = api.call("POST", "/uploads", {"size": 5}).json

    with pytest.raises(ValueError, match="SignatureDoesNotMatch"):
        api.container.uploads.put(upload["url"], b"123456", "text/csv")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"content_type": "application/pdf", "size": 1}, 415),
        ({"content_type": "text/csv; charset=latin-1", "size": 1}, 400),
        ({}, 400),
        ({"size": 0}, 400),
        ({"size": None}, 400),
        ({"sise": 1}, 400),
    ],
)
def test_an_invalid_upload_request_is_refused(api: Api, body: object, status: int) -> None:
    assert api.call("POST", "/uploads", body).status == status


def test_viewers_may_not_create_uploads(api: Api) -> None:
    assert api.call("POST", "/uploads", {}, "viewer").status == 403


def batch_request(raw: str | bytes = b"", content_type: str = "application/json", **query: str) -> ApiRequest:
    """A `POST /batches` with this body and query."""
    data = raw.encode() if isinstance(raw, str) else raw
    return ApiRequest(
        id="r",
        container=bootstrap.container(),
        method="POST",
        path="/batches",
        query=query,
        headers={"content-type": content_type},
        raw=data,
        caller_or_none=caller(),
    )


def upload_csv(api: Api, data: bytes) -> str:
    """Upload a CSV file and return its id."""
    upload = api.call("POST", "/uploads", {"size": len(data)}).json
    api.container.uploads.put(upload["url"], data, "text/csv")
    return str(upload["upload_id"])


def test_a_batch_is_read_from_the_request_body(api: Api) -> None:
    content_type, pieces, options = batch_source(batch_request('prompt\n"upload_id"\n', "text/csv", name="n", batch_size="3"))

    assert (content_type, b"".join(pieces), options) == ("text/csv", b'prompt\n"upload_id"\n', {"name": "n", "batch_size": 3})


@pytest.mark.parametrize("raw", ['[{"content": "upload_id"}]', "{upload_id", '{"items": ["the upload_id"], "name": "n"}'])
def test_a_json_body_with_upload_id_only_as_text_is_read_unchanged(api: Api, raw: str) -> None:
    assert b"".join(batch_source(batch_request(raw))[1]) == raw.encode()


def test_a_batch_is_read_from_an_upload_with_options_of_body_and_query(api: Api) -> None:
    upload_id = upload_csv(api, b"prompt\nhello\n")

    for request in (
        batch_request(f'{{"upload_id": "{upload_id}", "name": "n"}}', batch_size="3"),
        batch_request('{"name": "n"}', upload_id=upload_id, batch_size="3"),
        batch_request(upload_id=upload_id, name="n", batch_size="3"),
        batch_request(b"", "text/csv", upload_id=upload_id, name="n", batch_size="3"),
    ):
        content_type, pieces, options = batch_source(request)

        assert (content_type, b"".join(pieces), options) == ("text/csv", b"prompt\nhello\n", {"name": "n", "batch_size": 3})


@pytest.mark.parametrize(
    ("raw", "content_type"), [('{"items": ["a"], "upload_id": "u"}', "application/json"), ("prompt\nhello", "text/csv")]
)
def test_rows_together_with_an_upload_are_refused(api: Api, raw: str, content_type: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        batch_source(batch_request(raw, content_type, upload_id="u"))
    assert [detail.path for detail in caught.value.details] == ["upload_id"]


@pytest.mark.parametrize(("body", "error"), [('{"upload_id": 3}', InvalidRequest), ('{"upload_id": "upload_x"}', UploadNotFound)])
def test_a_batch_with_an_invalid_upload_id_is_refused(api: Api, body: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        batch_source(batch_request(body))


def test_replacement_characters_in_a_request_body_are_refused(api: Api) -> None:
    """API Gateway replaces invalid UTF-8 with U+FFFD; in an upload the character is intended."""
    mangled = api.call("POST", "/batches", raw="prompt\nfine\nGr\ufffd\ufffde\n", content_type="text/csv")
    text = "what does \ufffd mean?".encode()
    upload = api.call("POST", "/uploads", {"content_type": "text/plain", "size": len(text)}).json
    api.container.uploads.put(upload["url"], text, "text/plain")
    uploaded = api.call("POST", "/batches", {"upload_id": upload["upload_id"]})

    assert mangled.status == 400
    [error] = mangled.json["error"]["details"]
    assert error["path"] == "line 3"
    assert "UTF-8" in error["message"]
    assert uploaded.status == 202
