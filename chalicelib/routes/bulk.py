"""`/bulk`: one wish for many jobs."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain.identity import Role
from chalicelib.routes import parse, parse_many, shapes
from chalicelib.routes.http import REPLAYED, Answer, Request, endpoint
from chalicelib.usecases import bulk
from chalicelib.usecases.bulk import Wish
from chalicelib.usecases.once import Once

blueprint = Blueprint(__name__)


@endpoint(blueprint, "POST", "/bulk", Role.OPERATOR)
def start(request: Request) -> Answer:
    """Do one thing to many jobs: retry, cancel, delete, set_priority."""
    data = request.json()
    return carry_out(request, parse_many.bulk(data), "POST /bulk", data, dry_run=bool(data.get("dry_run")))


@endpoint(blueprint, "GET", "/bulk/{bulk_id}", Role.OPERATOR)
def look(request: Request, bulk_id: str) -> Answer:
    """How far a bulk action has come."""
    return Answer(body=shapes.bulk(bulk.find(wiring.desk(), request.caller, bulk_id, request.query.get("tenant"))))


def carry_out(request: Request, wish: Wish, route: str, data: dict[str, Any], *, dry_run: bool) -> Answer:
    """Do it, or count: 200 if it is finished, 202 while it goes on by itself."""
    desk, caller = wiring.desk(), request.caller
    if dry_run:
        matched, more = bulk.count(desk, caller, wish)
        return Answer(body={"dry_run": True, "action": wish.action.value, "matched": matched, "more": more})
    key = parse.idempotency_key(request)
    begun = bulk.begin(desk, caller, wish, Once.of(caller, route, key, data) if key is not None else None)
    status = 202 if begun.bulk.finished_at is None else 200
    return Answer(status=status, body=shapes.bulk(begun.bulk), headers=REPLAYED if begun.replayed else {})
