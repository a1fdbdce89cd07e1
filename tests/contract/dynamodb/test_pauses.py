"""The stores of pauses, on the twins and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, force_open
from chalicelib.domain.limits.pauses import Bucket, PauseBoard, PauseScope, TenantPauses, change_board, change_tenant, note_on_board
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id, pause, pauses_of


def put_tenant(stores: Any, record: TenantPauses) -> tuple[TenantPauses, PauseBoard]:
    seen, board = stores.pauses.of_tenant(record.tenant, consistent=True), stores.pauses.board()
    new, new_board = change_tenant(seen, record.pauses), note_on_board(board, seen, record, NOW)
    stores.pauses.replace_tenant(seen, new, board, new_board)
    return new, new_board


def test_a_tenant_without_pauses_has_an_empty_record(stores: Any) -> None:
    tenant = new_id()

    assert stores.pauses.of_tenant(tenant) == TenantPauses(tenant=tenant)


@pytest.mark.parametrize("name", ["acme", "ac/me #1", "\u00e4 \U0001f600"])
def test_the_pauses_of_a_tenant_and_the_board_change_together(stores: Any, name: str) -> None:
    tenant = name + new_id()

    new, board = put_tenant(stores, pauses_of(tenant))

    assert stores.pauses.of_tenant(tenant) == stores.pauses.of_tenant(tenant, consistent=True) == new
    assert stores.pauses.board() == board
    assert board.may_concern(tenant, NOW)


def test_the_board_is_read_with_the_circuits(stores: Any) -> None:
    """In one request, and neither hides the other."""
    forced = force_open(CircuitBreaker(model=new_id()), "ann", "moving", "m", NOW)
    stores.circuit_breakers.replace(CircuitBreaker(model=forced.model), forced)
    seen = stores.pauses.board()
    new = change_board(seen, (pause(PauseScope(lane="low"), by_stage=True),))
    stores.pauses.replace_board(seen, replace(new, buckets={"7": Bucket(1, NOW + 5)}))

    circuits, board = stores.circuit_breakers.all_with_board()

    assert forced in circuits
    assert board == stores.pauses.board()
    assert (board.pauses, board.buckets["7"]) == (new.pauses, Bucket(1, NOW + 5))
    assert {one.model for one in stores.circuit_breakers.all()} == {one.model for one in circuits}


def test_of_two_changes_of_one_board_the_second_is_refused(stores: Any) -> None:
    seen = stores.pauses.board()
    first = change_board(seen, (pause(PauseScope(type="a")),))
    stores.pauses.replace_board(seen, first)

    with pytest.raises(StaleVersion) as refused:
        stores.pauses.replace_board(seen, change_board(seen, (pause(PauseScope(type="b")),)))

    assert refused.value.current == first == stores.pauses.board()


@pytest.mark.parametrize("changed", ["tenant", "board"])
def test_a_swap_of_both_records_is_refused_if_one_of_them_has_changed(stores: Any, changed: str) -> None:
    """Nothing is written then: the number of tenants on the board stays right."""
    tenant = new_id()
    seen, board = put_tenant(stores, pauses_of(tenant))
    if changed == "tenant":
        put_tenant(stores, pauses_of(tenant, pause()))
        board = stores.pauses.board()
    else:
        stores.pauses.replace_board(board, change_board(board, ()))
    before = stores.pauses.of_tenant(tenant, consistent=True), stores.pauses.board()

    with pytest.raises(StaleVersion):
        stores.pauses.replace_tenant(seen, change_tenant(seen, ()), board, note_on_board(board, seen, seen, NOW))

    assert (stores.pauses.of_tenant(tenant, consistent=True), stores.pauses.board()) == before


def test_a_swap_whose_response_was_lost_succeeds(stores: Any, lose_response: LoseResponse) -> None:
    tenant = new_id()

    with lose_response("TransactWriteItems"):
        new, board = put_tenant(stores, pauses_of(tenant))

    assert (stores.pauses.of_tenant(tenant, consistent=True), stores.pauses.board()) == (new, board)


def test_all_tenants_are_paged_by_name_the_greatest_first(stores: Any) -> None:
    names = sorted((new_id() for _ in range(3)), reverse=True)
    for name in names:
        put_tenant(stores, pauses_of(name))

    found, before = [], None
    while True:
        page, before = stores.pauses.page(before, 2)
        found += [one.tenant for one in page]
        if before is None:
            break

    assert [name for name in found if name in names] == names
    assert len(found) == len(set(found))
