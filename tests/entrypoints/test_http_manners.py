"""What HTTP clients send by habit: encodings, content types without a body, query parameters, numbers, OpenAI's names."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

import app  # noqa: F401 - registers the routes
from chalicelib.entrypoints.http.request_body import JSON
from chalicelib.entrypoints.http.server import ROUTES
from tests.kit.http import Api, Reply
from tests.kit.work import work

LATIN_1 = "Gr\ufffd\ufffde aus K\ufffdln"  # as API Gateway passes it
WITH_BODY = [route for route in ROUTES if route.accepts]
VALUES = {
    "job_id": "job_" + "0" * 26,
    "batch_id": f"batch_{'0' * 26}",
    "delivery_id": "dlv_1",
    "bulk_id": "bulk_1",
    "name": "general",
    "model": "gpt",
    "tenant": "acme",
    "queue": "general",
    "pause_id": "pause_1",
}


def path_of(api: Api, template: str) -> str:
    """The path of a route, of a job that exists."""
    return template.format(**{**VALUES, "job_id": api.submit()})


def problems(reply: Reply) -> dict[str, str]:
    """The details of a 400, by path."""
    assert reply.status == 400, reply.text
    return {detail["path"]: detail["message"] for detail in reply.json["error"]["details"]}


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: f"{route.method} {route.path}")
def test_a_body_that_is_not_utf8_is_refused_on_every_route(api: Api, route: Any) -> None:
    reply = api.call(route.method, path_of(api, route.path), raw=json.dumps({"prompt": LATIN_1}, ensure_ascii=False), token="stage_admin")

    assert reply.status == 400
    assert "UTF-8" in reply.text


def test_the_refusal_says_where_the_lost_byte_was_and_how_utf8_is_sent(api: Api) -> None:
    found = problems(api.call("POST", "/jobs", raw='{"prompt":\n "Gr\ufffd\ufffde"}'))

    assert found[""].startswith("is not UTF-8 in line 2 after ")
    assert "ISO-8859-1" in found[""]
    assert "GetBytes" in found[""]


def test_a_replacement_character_that_is_meant_is_written_as_an_escape(api: Api) -> None:
    job_id = api.call("POST", "/jobs", raw=r'{"prompt":"What is \ufffd?"}').json["job_id"]

    assert api.call("GET", f"/jobs/{job_id}?include=prompt").json["prompt"] == "What is \ufffd?"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json; charset=utf-8", '{"prompt":"Grüße"}', 202),
        ('Application/JSON;Charset="UTF8"', '{"prompt":"Grüße"}', 202),
        ("application/json; charset=us-ascii", '{"prompt":"x"}', 202),
        ("application/json; charset=ISO-8859-1", '{"prompt":"x"}', 202),  # the same bytes
        ("application/json; charset=ISO-8859-1", '{"prompt":"Grüße"}', 400),
        ("application/json; charset=windows-1252", '{"prompt":"Grüße"}', 400),
        ("application/json; charset=utf-16", '{"prompt":"x"}', 400),
        ("application/json; charset=idna", '{"prompt":"x"}', 400),
        ("application/json", '\ufeff{"prompt":"x"}', 202),  # the byte order mark of UTF-8
        ("application/json", "\ufffd\ufffd{\0}\0", 400),  # that of UTF-16, as API Gateway passes it
        ("application/json", '{"prompt":"x"}'.encode("utf-16-le").decode("ascii"), 400),
    ],
)
def test_a_charset_is_obeyed_or_refused(api: Api, content_type: str, body: str, status: int) -> None:
    reply = api.call("POST", "/jobs", raw=body, content_type=content_type)

    assert reply.status == status, reply.text
    assert status == 202 or "not UTF-8" in reply.text


def test_a_packed_body_is_named_and_nobody_is_told_to_encode_it(api: Api) -> None:
    packed = gzip.compress(b'{"prompt":"x"}').decode("utf-8", "replace")  # as API Gateway passes it

    reply = api.call("POST", "/jobs", raw=packed, content_encoding="gzip")

    assert reply.status == 400
    assert "are not unpacked" in problems(reply)["Content-Encoding"]
    assert api.call("POST", "/jobs", raw='{"prompt":"x"}', content_encoding="identity").status == 202


def test_a_body_that_arrives_as_bytes_is_checked_too(api: Api) -> None:
    """API Gateway passes content types that it knows as binary in base64."""
    reply = api.call("POST", "/jobs", raw='{"prompt":"Grüße"}'.encode("latin-1"))

    assert "not UTF-8" in reply.text


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "", "nonsense"]
)
@pytest.mark.parametrize("body", [None, "", "{}"])
def test_a_cancel_without_content_is_done_whatever_its_content_type(api: Api, content_type: str, body: str | None) -> None:
    job_id = api.submit(delay=3_600)

    reply = api.call("POST", f"/jobs/{job_id}/cancel", raw=body, content_type=content_type)

    assert (reply.status, reply.json["status"]) == (200, "cancelled")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain"])
def test_reads_and_deletes_have_no_use_for_a_content_type(api: Api, method: str, content_type: str) -> None:
    assert api.call(method, f"/jobs/{api.submit(delay=60)}", content_type=content_type).status == 200


def test_an_empty_body_of_any_type_is_an_empty_object(api: Api) -> None:
    job_id = api.submit()
    work(api)

    assert api.call("POST", "/stream-tickets", raw="", content_type="application/x-www-form-urlencoded").status == 201
    assert api.call("POST", f"/jobs/{job_id}/retry", raw="", content_type="text/plain").status == 409


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.accepts], ids=lambda route: f"{route.method} {route.path}")
def test_a_body_that_no_route_reads_is_refused_instead_of_dropped(api: Api, route: Any) -> None:
    """`DELETE /failed-jobs?all=true` with the filters in the body would delete everything."""
    reply = api.call(route.method, path_of(api, route.path), {"type": "general"}, "stage_admin", content_type="text/plain")

    assert (reply.status, reply.json["error"]["message"]) == (400, "This route takes no body.")


def test_a_wrong_content_type_is_named_beside_the_right_one(api: Api) -> None:
    reply = api.call("POST", "/jobs", raw="prompt=x", content_type="application/x-www-form-urlencoded")

    assert reply.status == 415
    assert JSON in reply.text
    assert "application/x-www-form-urlencoded" in reply.text


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_an_unknown_query_parameter_is_refused_on_every_route(api: Api, route: Any) -> None:
    reply = api.call(route.method, path_of(api, route.path) + "?colour=red", token="stage_admin" if route.role else None)

    assert "is not a known parameter" in problems(reply)["colour"]
    assert all(name in problems(reply)["colour"] for name in route.query)


@pytest.mark.parametrize(
    ("route", "name"),
    [(route, name) for route in ROUTES for name in route.query if name not in ("include", "ticket")],
    ids=lambda value: value if isinstance(value, str) else f"{value.method} {value.path}",
)
def test_a_repeated_query_parameter_is_refused_on_every_route(api: Api, route: Any, name: str) -> None:
    reply = api.call(route.method, f"{path_of(api, route.path)}?{name}=true&{name}=false", token="stage_admin")

    assert problems(reply)[name] == 'is given twice: "true", "false"'


def test_a_list_in_the_query_may_be_repeated(api: Api) -> None:
    job_id = api.submit()

    assert "prompt" in api.call("GET", f"/jobs/{job_id}?include=prompt&include=prompt").json
    assert problems(api.call("GET", f"/jobs/{job_id}?include=prompt&include=secrets")) == {"include": "must be prompt"}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/jobs?tag=", "tag"),
        ("/jobs?error_code=", "error_code"),
        ("/batches?tenant=", "tenant"),
        ("/jobs?tag=Gr%FC%DFe", "tag"),
        ("/batches/{batch}?detailed=yes", "detailed"),
        ("/batches/{batch}?limit=5", "limit"),
        ("/batches/{batch}?cursor=5", "cursor"),
    ],
)
def test_a_query_value_that_would_be_dropped_is_refused(api: Api, url: str, path: str) -> None:
    batch = api.call("POST", "/batches", ["a"]).json["batch_id"]

    assert path in problems(api.call("GET", url.format(batch=batch)))


def test_names_that_are_not_utf8_are_refused_outside_of_bodies_too(api: Api) -> None:
    """Two different ones would become the same name."""
    assert "UTF-8" in problems(api.call("POST", "/circuits/gpt-%FC/open", {}, "stage_admin"))["model"]
    assert "UTF-8" in problems(api.call("POST", "/jobs", {"prompt": "x"}, Idempotency_Key="K\ufffdln"))["Idempotency-Key"]


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        (
            '{"prompt":"x","metadata":{"a":' + "[" * 5_000 + "]" * 5_000 + "}}",
            "",
            "levels deep; at most 100 are allowed, and the next begins in line 1, column",
        ),
        ('{"prompt":"x","delay":' + "9" * 5_000 + "}", "delay", "more than 4,300 digits"),
        ('{"prompt":"' + "9" * 5_000 + '","metadata":{"sizes":[1,' + "9" * 5_000 + "]}}", "metadata.sizes.1", "more than 4,300 digits"),
        ('{"prompt":\n', "", "in line 2, column 1: a value is missing, at the end"),
        ("{'prompt':'x'}", "", "a field's name in double quotes is missing, at \"'prompt'"),
        ('{"prompt":"x"', "", "a comma, or the end of the list or object, is missing"),
        ('{"prompt":"x"}}', "", 'the JSON is over, but more follows, at "}"'),
        ('{"prompt":"a\nb"}', "", "a text has a line break"),
        ('{"prompt":"C:\\new\\x"}', "", "the backslash itself is written twice"),
        ('{"prompt":"x', "", "a text begins that does not end"),
        ("[1]", "", "must be an object, not a list"),
        ("null", "", "must be an object, not null"),
        ("prompt", "", 'a value is missing, at "prompt"'),
        ('{"prompt":"x","delay":1e999}', "delay", "must be a finite number, not Infinity"),
        ('{"prompt":"x","metadata":{"a":[NaN]}}', "metadata.a.0", "must be a finite number, not NaN"),
        ('{"prompt":"x","priority":"low","config":{"priority":"high"}}', "priority", 'is "low" but config.priority is "high"'),
    ],
)
def test_what_is_wrong_with_json_is_said_in_our_words_with_its_place(api: Api, body: str, path: str, says: str) -> None:
    found = problems(api.call("POST", "/jobs", raw=body))

    assert says in found[path], found
    assert not any(word in str(found) for word in ("recursion", "Exceeds", "char ", "delimiter", "NoneType", "dict", "inf,"))


@pytest.mark.parametrize("path", ["/jobs", "/jobs/estimate"])
@pytest.mark.parametrize(
    ("fields", "place", "hint"),
    [
        ({"model": "gpt-4o"}, "model", "`config.model`"),
        ({"temperature": 1}, "temperature", "`config.temperature`"),
        ({"top_p": 1}, "top_p", "`config.openai.top_p`"),
        ({"messages": []}, "messages", "`prompt`"),
        ({"instructions": "x"}, "instructions", "`config.system_prompt`"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "`config.openai.reasoning`"),
        ({"config": {"reasoning_effort": "low"}}, "config.reasoning_effort", "`config.openai.reasoning`"),
        ({"config": {"reasoning": {}}}, "config.reasoning", "`config.openai.reasoning`"),
        ({"config": {"max_completion_tokens": 1}}, "config.max_completion_tokens", "`config.max_tokens`"),
        ({"config": {"openai": {"max_output_tokens": 1}}}, "config.openai.max_output_tokens", "`config.max_tokens`"),
        ({"config": {"prompt": "x"}}, "config.prompt", "`prompt` beside `config`"),
        ({"config": {"response_format": {"type": "json_object"}}}, "config.response_format.type", '`response_format: "json"`'),
        ({"config": {"response_format": {"type": "text"}}}, "config.response_format.type", '`response_format: "text"`'),
        ({"stream": True}, "stream", "`config.streaming_mode`"),
        ({"n": 2}, "n", "one answer"),
        ({"tools": []}, "tools", "not available"),
        ({"seed": 1}, "seed", "not passed on"),
        ({"promt": "x"}, "promt", "did you mean `prompt`?"),
    ],
)
def test_a_field_of_openai_is_answered_with_its_name_here(api: Api, path: str, fields: dict[str, Any], place: str, hint: str) -> None:
    found = problems(api.call("POST", path, {"prompt": "x", **fields}))

    assert list(found) == [place]
    assert hint in found[place]


@pytest.mark.parametrize("name", ["max_completion_tokens", "reasoning_effort"])
def test_a_batch_gives_the_same_hints(api: Api, name: str) -> None:
    found = problems(api.call("POST", "/batches", {"items": ["a"], "config": {name: 1}}))

    assert "config." in found[f"config.{name}"].partition(";")[2]


NUMBERS = [
    "4.083789725192148e307",
    "-4e307",
    "1e400",
    "-1e400",
    "5e-324",
    "-0.0",
    "1e2",
    "6914886.0",
    "9" * 300,
    "NaN",
    "0.1",
    "-1",
    "1e18",
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("POST", "/jobs", '{"prompt":"x","#":@}'.replace("#", name)) for name in ("delay", "expires_in")),
        *(
            ("POST", "/jobs", '{"prompt":"x","config":{"#":@}}'.replace("#", name))
            for name in ("max_tokens", "max_attempts", "timeout", "retry_for", "temperature")
        ),
        ("POST", "/jobs", '{"prompt":"x","config":{"cache":{"ttl":@}}}'),
        ("POST", "/jobs", '{"prompt":"x","config":{"openai":{"top_p":@}}}'),
        ("POST", "/jobs", '{"prompt":"x","job_type":"learning_insights","options":{"questions":@}}'),
        ("POST", "/jobs", '{"input":{"days":@},"job_type":"data_cleanup"}'),
        *(("PATCH", "/jobs/{job}", '{"#":@}'.replace("#", name)) for name in ("delay", "expires_in")),
        ("POST", "/jobs/{job}/retry", '{"run":@}'),
        ("POST", "/stream-tickets", '{"expires_in":@}'),
        ("POST", "/uploads", '{"size":@}'),
        *(
            ("POST", "/batches", '{"items":["a","b"],"#":@}'.replace("#", name))
            for name in ("batch_size", "delay", "parallel_limit", "failure_tolerance")
        ),
        ("POST", "/batches", '{"items":["a"],"config":{"max_tokens":@}}'),
    ],
    ids=lambda value: value,
)
def test_any_number_of_json_is_taken_or_refused_by_name(api: Api, method: str, path: str, body: str, number: str) -> None:
    reply = api.call(method, path.format(job=api.submit(delay=60)), raw=body.replace("@", number), token="operator")

    assert reply.status < 500, reply.text
    if reply.status == 400:
        name = body.partition('":@')[0].rpartition('"')[2]
        assert any(name in detail["path"] for detail in reply.json["error"]["details"]), reply.text
    work(api)


@pytest.mark.parametrize(
    ("path", "body", "whole"),
    [
        ("/uploads", '{"size":6914886.0,"content_type":null}', None),
        ("/jobs", '{"prompt":"x","config":{"max_tokens":1e2,"max_attempts":2.0}}', {"max_tokens": 100, "max_attempts": 2}),
    ],
)
def test_a_whole_number_may_be_written_with_a_point_or_an_exponent(api: Api, path: str, body: str, whole: dict[str, int] | None) -> None:
    reply = api.call("POST", path, raw=body)

    assert reply.status in (201, 202), reply.text
    if whole:
        config = json.loads(api.call("GET", f"/jobs/{reply.json['job_id']}").text)["config"]
        assert {name: repr(config[name]) for name in whole} == {name: repr(value) for name, value in whole.items()}


def test_a_polyfill_of_eventsource_may_name_its_position_in_the_query(api: Api) -> None:
    job_id = api.submit()
    work(api)

    ended = api.call("GET", f"/jobs/{job_id}/stream?last_event_id=1:0&lastEventId=1:12:end")

    assert ended.status == 204


@pytest.mark.parametrize("path", ["/bulk", "/failed-jobs/retry"])
def test_an_invalid_idempotency_key_is_refused_by_a_dry_run_too(api: Api, path: str) -> None:
    body = {"all": True, "dry_run": True, **({"action": "retry"} if path == "/bulk" else {})}

    assert "Idempotency-Key" in problems(api.call("POST", path, body, "operator", Idempotency_Key=""))
