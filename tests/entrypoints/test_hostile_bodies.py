"""Requests and files that are made to need time or memory, in processes with the memory of a function.

The figures are CPU seconds, as multiples of those that a fixed piece of work takes at that moment, and the
most memory that was used: other processes matter little.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.kit.hostile_bodies import BODIES
from tests.kit.hostile_files import FILES
from tests.kit.http import Api
from tests.kit.paths import ROOT

MAX_CPU = 60  # times the CPU seconds of a fixed piece of work: about a second and a half of an idle core
MAX_PEAK_MB = 300
# A valid file is not hostile: it may take what its bytes need.
VALID_FILES = {name for name, file in FILES.items() if file.status == 202}


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    """What each request took, by its name."""
    ran = subprocess.run([sys.executable, "-m", "tests.kit.limited_process"], capture_output=True, text=True, check=False, cwd=ROOT)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"name"')]
    assert lines, ran.stderr
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_answered_within_bounded_cpu_and_300_mb(measured: dict[str, dict[str, Any]], name: str) -> None:
    line, hostile = measured[name], BODIES[name]

    assert line["status"] == hostile.status, line["answer"][:500]
    assert hostile.says in line["answer"], line["answer"][:500]
    assert line["cpu"] < MAX_CPU * line["unit"]
    assert line["peak_mb"] < MAX_PEAK_MB


@pytest.mark.parametrize("way", ["upload", "import"])
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_by_api_and_worker_within_bounded_cpu_and_300_mb(
    measured: dict[str, dict[str, Any]], name: str, way: str
) -> None:
    line, file = measured[f"{way} of {name}"], FILES[name]

    assert line["status"] == (400 if way == "import" and file.status == 413 else file.status), line["answer"][:500]
    assert file.says in line["answer"], line["answer"][:500]
    if name not in VALID_FILES:
        assert line["cpu"] < MAX_CPU * line["unit"]
        assert line["peak_mb"] < MAX_PEAK_MB


def test_a_large_valid_body_is_accepted(api: Api) -> None:
    """The limits do not refuse what the documentation allows: commas in texts are no values, and 10,000 rows have fields."""
    prose = {"prompt": "One, two, [three], {four}: " * 35_000}
    rows = [{"id": str(n), "prompt": f"Row {n}, of many.", "metadata": {"a": n, "b": "x", "c": True}} for n in range(10_000)]

    assert api.call("POST", "/jobs", prose).status == 202
    assert api.call("POST", "/batches", {"items": rows}).status == 202


def test_a_large_body_counts_as_several_requests(api: Api) -> None:
    """One for each started 64 KB; nine batches of 4 MB a minute pass, and the next waits."""
    small = api.call("POST", "/jobs/estimate", {"prompt": "x"})
    large = api.call("POST", "/batches?dry_run=true", raw="prompt\n" + f'"{"x" * 3_500}"\n' * 1_100, content_type="text/csv")

    assert large.status == 200, large.text
    assert small.headers["ratelimit"].startswith('"key";r=599;')
    assert large.headers["ratelimit"].startswith('"key";r=540;')


def test_a_body_larger_than_the_rest_of_the_limit_passes_and_the_next_waits(api: Api) -> None:
    for _ in range(590):
        api.container.request_counters.increment("key#key_user", api.container.clock.now() // 60_000, 0)

    passed = api.call("POST", "/batches?dry_run=true", raw="prompt\n" + "x\n" * 5_000 + f'"{"y" * 900_000}"\n', content_type="text/csv")

    assert passed.status == 200, passed.text
    assert api.call("GET", "/me").status == 429


def test_an_upload_counts_when_it_is_signed_and_when_it_is_read(api: Api) -> None:
    size = 3 * 262_144
    upload = api.call("POST", "/uploads", {"size": size})
    api.container.uploads.put(upload.json["url"], b"prompt\n" + b"x" * (size - 7), "text/csv")
    batch = api.call("POST", "/batches?dry_run=true", {"upload_id": upload.json["upload_id"]})

    assert upload.headers["ratelimit"].startswith('"key";r=596;')
    assert batch.headers["ratelimit"].startswith('"key";r=592;'), batch.text
