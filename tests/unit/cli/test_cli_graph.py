"""`headrace graph`, and `headrace submit --depends-on`, against a fake server."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.domain.validation.schema import problems
from chalicelib.entrypoints.http.requests import schemas
from tests.unit.cli.server import JOB, Answer, FakeServer, run

PATH = f"GET /jobs/{JOB}/graph"


def node(job_id: str, status: str = "waiting", **more: Any) -> dict[str, Any]:
    return {"job_id": job_id, "job_type": "general", "status": status, "error_code": None, **more}


def answer(nodes: list[dict[str, Any]], edges: list[tuple[str, str]], *, truncated: bool = False) -> Answer:
    shown = [{"from": parent, "to": child, "alias": None} for parent, child in edges]
    return Answer(body={"success": True, "job_id": JOB, "nodes": nodes, "edges": shown, "truncated": truncated})


def test_dependencies_are_sent_as_a_list_or_by_name(server: FakeServer) -> None:
    """A list of ids, or an object as soon as one dependency has a name."""
    assert run("submit", "Hi", "--depends-on", "job_1", "--depends-on", "job_2") == 0
    assert run("submit", "Hi", "--depends-on", "a=job_1", "--depends-on", "job_2", "--on-parent-failure", "run_anyway") == 0

    plain, named = (sent[3] for sent in server.sent("POST /jobs"))
    assert plain == {"prompt": "Hi", "depends_on": ["job_1", "job_2"]}
    assert named == {"prompt": "Hi", "depends_on": {"a": "job_1", "job_2": "job_2"}, "on_parent_failure": "run_anyway"}
    assert [problems(schemas.SUBMIT, body) for body in (plain, named)] == [(), ()]


def test_duplicate_dependency_names_are_rejected(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("submit", "Hi", "--depends-on", "a=job_1", "--depends-on", "a=job_2") == 2
    assert "there is another a" in capsys.readouterr().err
    assert server.sent("POST /jobs") == []


def test_diamond_is_drawn_as_a_tree(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The dependents of a job with two parents are drawn once."""
    nodes = [node("job_top", "completed"), node(JOB, "failed", error_code="timeout"), node("job_r"), node("job_b"), node("job_tail")]
    edges = [("job_top", JOB), ("job_top", "job_r"), (JOB, "job_b"), ("job_r", "job_b"), ("job_b", "job_tail")]
    server.planned[PATH] = [answer(nodes, edges)]

    assert run("graph", JOB) == 0

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "job_top  completed",
        f"├── {JOB}  failed  timeout",
        "│   └── job_b  waiting",
        "│       └── job_tail  waiting",
        "└── job_r  waiting",
        "    └── job_b  waiting",
    ]


def test_graph_json_prints_the_api_answer(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.planned[PATH] = [answer([node(JOB)], [])]

    assert run("graph", JOB, "--json") == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["job_id"] == JOB


def test_truncated_graph_is_cut_at_the_maximum_depth_with_a_note(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A chain is cut at the maximum depth; two roots are two trees."""
    chain = [f"job_{number:03}" for number in range(199)]
    edges = [*pairwise(chain)]
    server.planned[PATH] = [answer([node(JOB), *map(node, chain)], edges, truncated=True)]

    assert run("graph", JOB) == 0

    seen = capsys.readouterr()
    lines = seen.out.splitlines()
    assert len(lines) == 1 + 15 + 1
    assert lines[-1].strip("\N{BOX DRAWINGS LIGHT UP AND RIGHT}\N{BOX DRAWINGS LIGHT HORIZONTAL} ") == "... headrace graph job_014"
    assert max(map(len, map(str.rstrip, lines))) < 110
    assert "There are more" in seen.err
