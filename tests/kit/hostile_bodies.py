"""Requests that are small in bytes and large in everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SIZE = 3_900_000  # bytes of each body; a request may have 4 MB

JSON, CSV, TEXT, LINES = "application/json", "text/csv", "text/plain", "application/x-ndjson"


@dataclass(frozen=True)
class Hostile:
    """A request, and what is to be answered."""

    make_body: Callable[[], str]
    path: str = "/jobs"
    content_type: str = JSON
    status: int = 400
    says: str = ""  # a part of the answer


def filled(before: str, piece: str, after: str, size: int = SIZE) -> str:
    """Return a text of about `size` bytes."""
    return before + piece * ((size - len(before) - len(after)) // len(piece.encode())) + after


def numbered(count: int, piece: str) -> str:
    return ",".join(piece % number for number in range(count))


def schema_job(schema: Any) -> str:
    return json.dumps({"prompt": "x", "config": {"response_format": {"type": "json_schema", "name": "n", "schema": schema}}})


def doubling(levels: int, keyword: str = "anyOf") -> dict[str, Any]:
    """Return a schema in which each level is the next one twice."""
    defs: dict[str, Any] = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(levels)}
    return {"$defs": {**defs, f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def chain(length: int) -> dict[str, Any]:
    """Return a schema of references, each to the next."""
    defs: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(length)}
    return {"$defs": {**defs, f"d{length}": {"type": "string"}}, "$ref": "#/$defs/d0"}


# Each level of the answer is tried by both alternatives, so the rules that apply double with each level.
AMBIGUOUS: dict[str, Any] = {
    "anyOf": [
        {"type": "object", "properties": {"c": {"$ref": "#"}}, "additionalProperties": False},
        {"type": "object", "properties": {"c": {"$ref": "#"}}, "required": ["c"], "additionalProperties": False},
    ]
}


def nested(levels: int, innermost: Any) -> Any:
    """Return objects within each other, as `AMBIGUOUS` describes them."""
    value = innermost
    for _ in range(levels):
        value = {"c": value}
    return value


VALUES = "values; at most"
BODIES: dict[str, Hostile] = {
    "tags of lists": Hostile(lambda: filled('{"prompt":"x","tags":[', "[],", "[]]}"), says=VALUES),
    "notify of numbers": Hostile(lambda: filled('{"prompt":"x","notify":[', "1,", "1]}"), says=VALUES),
    "metadata of lists": Hostile(lambda: filled('{"prompt":"x","metadata":{"a":[', "[],", "[]]}}"), says=VALUES),
    "input of objects": Hostile(lambda: filled('{"input":[', "{},", "{}]}"), says=VALUES),
    "unknown fields": Hostile(lambda: '{"prompt":"x",' + numbered(330_000, '"k%d":1') + "}", says=VALUES),
    "one field again and again": Hostile(lambda: filled("{", '"prompt":"x",', '"prompt":""}'), says=VALUES),
    "deepest lists": Hostile(lambda: "[" * SIZE, says=VALUES),
    "deepest objects": Hostile(lambda: filled('{"prompt":', '{"a":', "1"), says="values; at most"),
    "a thousand levels": Hostile(lambda: '{"prompt":"x","metadata":' + "[" * 1_000 + "]" * 1_000 + "}", says="levels deep; at most 100"),
    "eighty levels": Hostile(lambda: '{"prompt":"x","metadata":{"a":' + "[" * 80 + "]" * 80 + "}}", says="deeper than 64 levels"),
    "as many tags as values are allowed": Hostile(lambda: '{"prompt":"x","tags":[' + "[]," * 24_900 + "[]]}", says="at most 10 items"),
    "as many parents as values are allowed": Hostile(
        lambda: '{"prompt":"x","depends_on":[' + "[]," * 24_900 + "[]]}", says="at most 100 items"
    ),
    "as many unknown fields as values are allowed": Hostile(
        lambda: '{"prompt":"x",' + numbered(49_900, '"k%d":1') + "}", says="unknown field"
    ),
    "as many halves of characters": Hostile(
        lambda: '{"prompt":"x","metadata":{"a":[' + '"\\ud800",' * 49_900 + "1]}}", says="half a character"
    ),
    "escapes in a prompt": Hostile(lambda: filled('{"prompt":"', "\\n\\n\\n", '"}'), says="must not be empty"),
    "quotes in a prompt": Hostile(lambda: filled('{"prompt":"', '\\",[{', '"}'), says="longer than 1 MB"),
    "emoji in a prompt": Hostile(lambda: filled('{"prompt":"', "\\ud83d\\ude00", '"}'), says="longer than 1 MB"),
    "a text that does not end": Hostile(lambda: filled('{"prompt":"', ",[{", ""), says="JSON"),
    "a whole number of a million digits": Hostile(lambda: '{"prompt":"x","delay":' + "9" * 1_000_000 + "}", says="4,300 digits"),
    "a fraction of four million digits": Hostile(lambda: '{"prompt":"x","delay":0.' + "9" * 3_800_000 + "}", status=202),
    "numbers of as many digits as are allowed": Hostile(
        lambda: '{"prompt":"x","metadata":{"a":[' + ("9" * 4_000 + ",") * 900 + "1]}}", says="16 KB"
    ),
    "a huge exponent": Hostile(lambda: '{"prompt":"x","delay":1e99999999}', says="finite"),
    "a number that is none": Hostile(lambda: '{"prompt":"x","delay":NaN,"metadata":{"a":-Infinity}}', says="finite"),
    "a byte order mark": Hostile(lambda: '\ufeff{"prompt":"x"}', status=202),
    "nul bytes": Hostile(lambda: "\0" * SIZE, says="JSON"),
    "a schema that doubles": Hostile(lambda: schema_job(doubling(40)), says="more than 10,000 parts"),
    "a schema that doubles by allOf": Hostile(lambda: schema_job(doubling(40, "allOf")), says="more than 10,000 parts"),
    "a schema that is a long chain": Hostile(lambda: schema_job(chain(5_000)), says="deeper than 100 levels"),
    "a schema of many patterns": Hostile(
        lambda: schema_job({"properties": {f"p{n}": {"pattern": f"\\w{{900}}{n}"} for n in range(5_000)}}), says="more than 200 patterns"
    ),
    "a schema with a huge pattern": Hostile(lambda: schema_job({"pattern": "(\\w{999}){999}"}), says="not a JSON Schema that can be used"),
    "a batch of lists": Hostile(lambda: filled('{"items":[', "[],", "[]]}"), "/batches", says=VALUES),
    "a batch of as many lists as values are allowed": Hostile(
        lambda: '{"items":[' + "[]," * 99_000 + "[]]}", "/batches", says="must be text or an object"
    ),
    "a batch with an input of lists": Hostile(lambda: filled('[{"input":[', "[],", "[]]}]"), "/batches", says=VALUES),
    "lines of lists": Hostile(lambda: filled("[", "[],", "[]]"), "/batches", LINES, says=VALUES),
    "lines that are not JSON": Hostile(lambda: filled("", "{\n", ""), "/batches", LINES, says="not JSON lines"),
    "a csv of a million columns": Hostile(lambda: filled("prompt", ",a", "\n"), "/batches", CSV, says="columns; the maximum is 256"),
    "a csv row of a million empty columns": Hostile(lambda: filled("prompt,b\nx", ",", "\n"), "/batches", CSV, 202),
    "a csv row of a million columns": Hostile(
        lambda: filled("prompt,b\nx", ",y", "\n"), "/batches", CSV, says="columns; the maximum is 256"
    ),
    "a csv of blanks around quotes": Hostile(lambda: filled("prompt,b\nx", ', "" ,"" ', "\n"), "/batches", CSV, says="closing quote"),
    "a csv of quotes that are not closed": Hostile(lambda: filled("prompt,b\nx", ', ""a, "', "\n"), "/batches", CSV, says="line 2"),
    "a line for the delimiter that does not end": Hostile(lambda: filled("sep=;", "\t", "x\n"), "/batches", CSV, says="columns"),
    "lines with the same field many times": Hostile(
        lambda: filled("", "{" + ",".join(['"prompt":1'] * 9_000) + "}\n", ""), "/batches", LINES, says="twice"
    ),
    "a form of many files": Hostile(
        lambda: filled("", '--b\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\nprompt\r\n', "--b--\r\n"),
        "/batches",
        "multipart/form-data; boundary=b",
        says="parts",
    ),
    "a form without an end": Hostile(
        lambda: filled("", "\r\n--c", ""), "/batches", "multipart/form-data; boundary=b", says="last boundary"
    ),
    "a csv header of one name": Hostile(lambda: filled("", "prompt", "\n"), "/batches", CSV, says="a field of more than 1 MB"),
    "a csv with a quote that does not end": Hostile(
        lambda: filled('prompt\n"', "text, ", ""), "/batches", CSV, says="a quote is probably not closed"
    ),
    "a csv with a quote over many lines": Hostile(
        lambda: filled('prompt\n"', "\n", ""), "/batches", CSV, says="a quote is probably not closed"
    ),
    "a csv of empty lines": Hostile(lambda: filled("prompt\n", "\n", ""), "/batches", CSV, says="empty lines"),
    "a csv of empty records": Hostile(lambda: filled("prompt,id\n", ",\n", ""), "/batches", CSV, says="empty lines"),
    "a csv of quotes": Hostile(lambda: filled("prompt\n", '"', ""), "/batches", CSV, says="line 2"),
    "a text of empty lines": Hostile(lambda: filled("", "\n", ""), "/batches", TEXT, says="empty lines"),
    "a text of carriage returns": Hostile(lambda: filled("", "\r", ""), "/batches", TEXT, says="empty lines"),
    "a text of one-letter lines": Hostile(lambda: filled("", "a\n", ""), "/batches", TEXT, says="maximum of 10,000 rows"),
}
