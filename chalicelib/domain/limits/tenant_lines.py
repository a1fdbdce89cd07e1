"""Which lines of a cause the jobs of a tenant stand in: by lane and age, or by user.

A tenant that shares by user has a line by user for each cause that lets jobs start a few at a time:
a rate, the limits of a type, a circuit, its own slots. What opens for all at once is shared by nobody,
and the line for the slots of one user has only that user's jobs.

A job stays in the line in which it is held when the setting changes, because its record says which
one it is. So whoever looks for the jobs of a tenant looks into both lines, if it ever shared by user.
"""

from __future__ import annotations

from chalicelib.domain.limits.slots import tenant_scope
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.queues.causes import CauseKind, kind_of, subject_of

SHARED = frozenset({CauseKind.RATE, CauseKind.TYPE, CauseKind.CIRCUIT})


def is_shared(cause: str, tenant: str) -> bool:
    """Whether the users of a tenant may share what a cause lets start."""
    kind = kind_of(cause)
    return kind in SHARED or (kind is CauseKind.SLOTS and subject_of(cause) == tenant_scope(tenant))


def joins_by_user(limits: TenantLimits, cause: str) -> bool:
    """Whether a job that is held for a cause now stands in the line by user."""
    return limits.is_by_user and is_shared(cause, limits.tenant)


def lines_to_read(limits: TenantLimits, cause: str) -> tuple[bool, ...]:
    """Return in which lines of a cause the tenant may have jobs; True: by user."""
    return (True, False) if limits.was_by_user and is_shared(cause, limits.tenant) else (False,)
