"""What a caller may see and do, by role, tenant and ticket."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller, Key, Role
from chalicelib.domain.errors import Forbidden, JobNotFound
from chalicelib.domain.jobs.job import Job
from tests.kit.jobs import NOW, job

HERS = job(user="ann")
HIS = job(user="bob")
ELSEWHERE = job(tenant="other", user="ann")


def _caller(role: str, **more: Any) -> Caller:
    fields: dict[str, Any] = {"tenant": "acme", "user": "ann", "key_id": "key_1", "key_hash": "h", **more}
    return Caller(role=Role.named(role), **fields)


def _key(**more: Any) -> Key:
    return Key(id="key_1", hash="h", tenant="acme", user="ann", role=Role.USER, created_at=NOW, **more)


@pytest.mark.parametrize(
    ("caller", "subject", "sees", "reads"),
    [
        (_caller("viewer"), HERS, True, False),  # a viewer sees statuses but no content, not even of its own jobs
        (_caller("viewer"), HIS, True, False),
        (_caller("viewer"), ELSEWHERE, False, False),
        (_caller("user"), HERS, True, True),
        (_caller("user"), HIS, False, False),
        (_caller("user"), ELSEWHERE, False, False),  # the same user name in another tenant is another user
        (_caller("operator"), HIS, True, True),
        (_caller("operator"), ELSEWHERE, False, False),
        (_caller("admin"), HIS, True, True),
        (_caller("admin"), ELSEWHERE, False, False),
        (_caller("admin", all_tenants=True), ELSEWHERE, True, True),
        (_caller("user", jobs=frozenset({HERS.id}), read_only=True), HERS, True, True),
        (_caller("user", jobs=frozenset({"job_99"})), HERS, False, False),  # a ticket shows only the jobs that it names
        (_caller("user", jobs=frozenset()), HERS, False, False),
        (_caller("operator", jobs=frozenset({"job_99"})), HERS, False, False),
        (_caller("user", jobs=frozenset({HIS.id})), HIS, False, False),  # and only those that its key may see
        (_caller("admin", all_tenants=True, jobs=frozenset({"job_99"})), ELSEWHERE, False, False),
    ],
)
def test_visibility_and_readability_by_role_tenant_and_ticket(caller: Caller, subject: Job, sees: bool, reads: bool) -> None:
    """Visible: the job exists for the caller. Readable: its prompt and result, too."""
    assert caller.may_see(subject) is sees
    assert caller.may_read_content(subject) is reads


def test_invisible_job_is_reported_like_a_missing_job() -> None:
    """A different message would reveal job ids of other tenants."""
    caller = _caller("operator")

    with pytest.raises(JobNotFound) as theirs:
        caller.require_readable(ELSEWHERE, "job_01")
    with pytest.raises(JobNotFound) as none:
        caller.require_readable(None, "job_01")
    assert theirs.value.message == none.value.message


def test_require_visible_and_require_readable_return_the_job() -> None:
    assert _caller("user").require_readable(HERS, HERS.id) is HERS
    assert _caller("viewer").require_visible(HIS, HIS.id) is HIS


def test_viewer_reading_content_is_forbidden() -> None:
    """A viewer sees the job, so the error is Forbidden and not JobNotFound."""
    with pytest.raises(Forbidden, match="Viewers"):
        _caller("viewer").require_readable(HIS, HIS.id)


@pytest.mark.parametrize("role", ["viewer", "user", "operator", "admin"])
@pytest.mark.parametrize("needed", ["viewer", "user", "operator", "admin"])
def test_require_accepts_the_same_or_a_higher_role(role: str, needed: str) -> None:
    """The error names the role required and the role of the caller."""
    order = ["viewer", "user", "operator", "admin"]
    caller = _caller(role)

    if order.index(role) >= order.index(needed):
        caller.require(Role.named(needed))
    else:
        with pytest.raises(Forbidden, match=rf"{needed}.*{role}"):
            caller.require(Role.named(needed))


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        (_key(), True),
        (_key(expires_at=NOW + 1), True),
        (_key(expires_at=NOW), False),
        (_key(revoked_at=NOW - 1), False),
        (_key(revoked_at=NOW + 60_000), False),  # a later timestamp comes from a clock that is ahead
    ],
)
def test_key_is_valid_until_expiry_or_revocation(key: Key, valid: bool) -> None:
    """A revocation applies at once, whatever its timestamp says."""
    assert key.is_valid(NOW) is valid


def test_caller_of_key_has_the_fields_of_the_key_and_no_ticket_limits() -> None:
    caller = Caller.of_key(_key(all_tenants=True))

    assert (caller.tenant, caller.user, caller.role, caller.key_id, caller.key_hash) == ("acme", "ann", Role.USER, "key_1", "h")
    assert (caller.all_tenants, caller.jobs, caller.read_only) == (True, None, False)


@pytest.mark.parametrize("role", list(Role))
def test_role_labels_resolve_back_to_their_role(role: Role) -> None:
    assert Role.named(role.label) is role
