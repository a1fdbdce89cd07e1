"""API keys, roles and callers: who makes a request and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from chalicelib.domain.errors import Forbidden, JobNotFound
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms


class Role(IntEnum):
    """What a key may do. Each role includes the ones before it."""

    VIEWER = 1  # sees statuses and counts of its tenant, never content
    USER = 2  # submits jobs; reads, streams, cancels and retries its own
    OPERATOR = 3  # does so with all jobs of the tenant
    ADMIN = 4  # manages the webhooks of its tenant; of all tenants also circuits and dead letters

    @classmethod
    def named(cls, name: str) -> Role:
        return cls[name.upper()]

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A stored API key. The secret itself is shown once, at creation, and never stored."""

    id: str
    hash: str  # SHA-256 of the secret
    tenant: str
    user: str  # the owner of the jobs that are submitted with it
    role: Role
    created_at: Ms
    expires_at: Ms | None = None
    revoked_at: Ms | None = None
    all_tenants: bool = False  # may read and act across tenants
    name: str = ""  # the administrator's label for it

    def is_valid(self, now: Ms) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The identity behind a request or a connection, from an API key or a ticket."""

    tenant: str
    user: str
    role: Role
    key_id: str
    key_hash: str
    all_tenants: bool = False
    # The only jobs that a ticket gives access to; None: no such restriction.
    jobs: frozenset[str] | None = None
    read_only: bool = False  # true for tickets

    @classmethod
    def of_key(cls, key: Key) -> Caller:
        return cls(tenant=key.tenant, user=key.user, role=key.role, key_id=key.id, key_hash=key.hash, all_tenants=key.all_tenants)

    def restricted_to(self, other: Caller) -> Caller:
        """Return this caller with the ticket restrictions of `other`.

        A ticket or socket is checked against the current state of its key, so that revoking the key
        takes effect.
        """
        return replace(self, jobs=other.jobs, read_only=other.read_only)

    def require(self, role: Role) -> None:
        """Refuse a caller below `role`.

        Raises:
            Forbidden: the message names both roles.
        """
        if self.role < role:
            raise Forbidden(f"This requires the role {role.label}; this key has the role {self.role.label}.")

    def require_all_tenants(self) -> None:
        """Refuse a caller of one tenant: what it asks for has an effect on all, or shows all.

        Raises:
            Forbidden: the key is of one tenant, or it is a ticket.
        """
        if not self.all_tenants or self.read_only:
            raise Forbidden("This concerns all tenants, so it requires a key of all tenants.")

    def may_see(self, job: Job) -> bool:
        """Whether the job is visible to this caller.

        A deleted job is not, even while parts of it are still stored.
        """
        return not job.is_deleted and self.owns(job)

    def owns(self, job: Job) -> bool:
        """Whether the job is in scope: of the tenant, of the user, or named by the ticket."""
        if self.tenant != job.tenant and not self.all_tenants:
            return False
        if self.jobs is not None and job.id not in self.jobs:
            return False
        return self.role != Role.USER or job.user == self.user

    def may_read_content(self, job: Job) -> bool:
        """Whether this caller may read prompts and results. Viewers may not."""
        return self.role >= Role.USER and self.may_see(job)

    def require_visible(self, job: Job | None, job_id: str) -> Job:
        """Return the job if it exists and is visible to this caller.

        Raises:
            JobNotFound: it does not exist or is not visible; the caller cannot tell which.
        """
        if job is None or not self.may_see(job):
            raise JobNotFound(job_id)
        return job

    def require_readable(self, job: Job | None, job_id: str) -> Job:
        """Return the job if this caller may read its content.

        Raises:
            JobNotFound: as for `require_visible`.
            Forbidden: the job is visible, but the caller is a viewer.
        """
        visible = self.require_visible(job, job_id)
        if not self.may_read_content(visible):
            raise Forbidden("Viewers may read statuses and counts, but not prompts and results.")
        return visible
