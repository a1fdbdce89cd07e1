"""Who is asking, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from chalicelib.domain.errors import Forbidden, JobNotFound
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms


class Role(IntEnum):
    """Each role may do what the ones before it may."""

    VIEWER = 1  # statuses and counts of its tenant, never content
    USER = 2  # submit; read, stream, cancel and retry its own jobs
    OPERATOR = 3  # all jobs of the tenant, with content
    ADMIN = 4  # keys and limits as well

    @classmethod
    def named(cls, name: str) -> Role:
        return cls[name.upper()]

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key as it is stored: by the SHA-256 of its secret, which is shown once and kept nowhere."""

    id: str
    hash: str
    tenant: str
    user: str
    role: Role
    created_at: Ms
    expires_at: Ms | None = None
    revoked_at: Ms | None = None
    all_tenants: bool = False
    name: str = ""

    def is_valid(self, now: Ms) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever a request or a connection speaks for. `jobs` narrows a ticket to the jobs that it names; tickets only read."""

    tenant: str
    user: str
    role: Role
    key_id: str
    key_hash: str
    all_tenants: bool = False
    jobs: frozenset[str] | None = None
    read_only: bool = False

    @classmethod
    def of_key(cls, key: Key) -> Caller:
        return cls(tenant=key.tenant, user=key.user, role=key.role, key_id=key.id, key_hash=key.hash, all_tenants=key.all_tenants)

    def restricted_to(self, other: Caller) -> Caller:
        """This caller, limited as `other` is by a ticket: what a ticket or a socket may do now, whatever its key could once."""
        return replace(self, jobs=other.jobs, read_only=other.read_only)

    def require(self, role: Role) -> None:
        """Refuse a caller below `role`.

        Raises:
            Forbidden: the message names both roles.
        """
        if self.role < role:
            raise Forbidden(f"This needs the role {role.label}; this key is a {self.role.label}.")

    def may_see(self, job: Job) -> bool:
        """Whether the job exists for this caller. One that was deleted does not, whatever is still kept of it."""
        return not job.is_deleted and self.owns(job)

    def owns(self, job: Job) -> bool:
        """Whether the job is, or was, one of this caller's. Another tenant's is not; neither is another user's for a user."""
        if self.tenant != job.tenant and not self.all_tenants:
            return False
        if self.jobs is not None and job.id not in self.jobs:
            return False
        return self.role != Role.USER or job.user == self.user

    def may_read_content(self, job: Job) -> bool:
        """Whether prompts and results may be shown: never to viewers."""
        return self.role >= Role.USER and self.may_see(job)

    def require_visible(self, job: Job | None, job_id: str) -> Job:
        """The job, if it is there for this caller.

        Raises:
            JobNotFound: it is not, or it is somebody else's; both look the same.
        """
        if job is None or not self.may_see(job):
            raise JobNotFound(job_id)
        return job

    def require_readable(self, job: Job | None, job_id: str) -> Job:
        """The job, if this caller may read its content.

        Raises:
            JobNotFound: as above.
            Forbidden: a viewer of the job's own tenant asked for content.
        """
        seen = self.require_visible(job, job_id)
        if not self.may_read_content(seen):
            raise Forbidden("A viewer sees statuses and counts, not prompts and results.")
        return seen
