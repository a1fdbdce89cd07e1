"""Read the pauses that concern a tenant."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.limits.pauses import Pause
from chalicelib.ports import Pauses
from chalicelib.services.context import Context


class PauseContext(Context, Protocol):
    """What reading pauses needs."""

    @property
    def pauses(self) -> Pauses: ...


def load_pauses(ctx: PauseContext, tenant: str) -> tuple[Pause, ...]:
    """Return the pauses of a tenant and those for everybody, also those that are over.

    One read, and a second one if the tenant may have pauses.

    Raises:
        UnreadableRecord: another version of the code wrote a record.
    """
    board = ctx.pauses.board()
    own = ctx.pauses.of_tenant(tenant, consistent=True).pauses if board.may_concern(tenant, ctx.clock.now()) else ()
    return (*board.pauses, *own)
