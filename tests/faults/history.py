"""The history of a run, which the stores do not keep, and invariants of each write."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.transitions import waits_for_parents

ALLOWED_TRANSITIONS: frozenset[tuple[Status, Status]] = frozenset(
    {
        (Status(before), Status(after))
        for before, afters in {
            "queued": ("processing", "cancelled", "expired", "queued", "held"),
            "processing": ("completed", "incomplete", "failed", "cancelled", "retrying", "queued", "processing", "held"),
            "retrying": ("processing", "cancelled", "failed", "queued", "retrying", "held"),
            "waiting": ("processing", "cancelled", "expired", "queued", "waiting", "held"),
            "held": ("processing", "cancelled", "failed", "expired", "queued", "held"),
            "incomplete": ("queued",),
            "failed": ("queued", "failed"),
            "cancelled": ("queued",),
            "expired": ("queued",),
        }.items()
        for after in afters
    }
)  # docs/states.md, a re-check that keeps the status, and the deletion mark of a failed job


@dataclass(eq=False)
class ResponseLog:
    """One response of the provider: its text, and its usage if the final event was read."""

    job_id: str
    attempt: int
    number: int
    sent: str = ""
    charged: Usage | None = None


@dataclass(eq=False)
class History:
    """Every version of every job record, every request to the provider and every result."""

    versions: dict[str, list[Job]] = field(default_factory=dict)  # by job id
    responses: list[ResponseLog] = field(default_factory=list)
    results: dict[tuple[str, int], list[Result]] = field(default_factory=dict)  # by job id and attempt
    problems: list[str] = field(default_factory=list)  # broken invariants
    cache_hits: dict[tuple[str, int], ResponseLog] = field(default_factory=dict)  # by job id and attempt
    ended: set[str] = field(default_factory=set)  # the ids of the jobs that have ended, in the order of writes and not of clocks
    releases: dict[str, list[frozenset[str]]] = field(default_factory=dict)  # by dependent: `ended` at each of its releases

    def record_creation(self, job: Job) -> None:
        if job.id in self.versions:
            self.problems.append(f"{job.id} was created twice")
        self.versions.setdefault(job.id, []).append(job)

    def record_replace(self, before: Job, after: Job) -> None:
        """Record a compare-and-swap that took effect, and check it."""
        self.versions[before.id].append(after)
        if after.status.is_terminal:
            self.ended.add(after.id)
        if waits_for_parents(before) and not after.status.is_terminal and not waits_for_parents(after):
            self.releases.setdefault(after.id, []).append(frozenset(self.ended))
        name = f"{before.id[-3:]} {before.status}->{after.status}"
        allowed = (before.status, after.status) in ALLOWED_TRANSITIONS
        self._expect(allowed, f"{name} is not a transition of docs/states.md")
        self._expect(after.version == before.version + 1, f"{name}: the version went from {before.version} to {after.version}")
        self._expect(after.generation >= before.generation, f"{name}: the generation decreased")
        self._expect(after.attempt >= before.attempt, f"{name}: the attempt number decreased")
        self._expect(after.attempt <= before.attempt + 1, f"{name}: an attempt number was skipped")
        is_due = after.notifies or after.has_dependents or not after.status.is_terminal
        self._expect((after.due_at is not None) == is_due, f"{name}: due_at is {after.due_at}")
        if after.is_deleted:
            return
        released = after.status in (Status.RETRYING, Status.QUEUED, Status.HELD) and before.status is Status.PROCESSING
        if before.status.is_terminal or released:
            self._expect(after.generation > before.generation, f"{name}: queued again with the same generation")
        if before.cancel_requested and before.run == after.run:
            self._expect(after.status is not Status.COMPLETED, f"{name}: completed despite a cancel request")

    def record_request(self, job_id: str, attempt: int) -> ResponseLog:
        self._expect(
            all((one.job_id, one.attempt) != (job_id, attempt) for one in self.responses),
            f"{job_id[-3:]} sent two requests to the provider for attempt {attempt}",
        )
        log = ResponseLog(job_id, attempt, len(self.responses) + 1)
        self.responses.append(log)
        return log

    def response_of(self, job_id: str, attempt: int) -> ResponseLog | None:
        requested = next((one for one in self.responses if (one.job_id, one.attempt) == (job_id, attempt)), None)
        return requested or self.cache_hits.get((job_id, attempt))

    def record_cache_hit(self, job_id: str, attempt: int, source: ResponseLog) -> None:
        """Record that the cache returned the response `source`, which costs nothing.

        The attempt may send a request all the same.
        """
        self.cache_hits[job_id, attempt] = ResponseLog(job_id, attempt, source.number, source.sent, Usage())

    def reclaimed_attempts(self, job_id: str) -> set[int]:
        """Return the attempts that the sweeper took from a worker, dead or not."""
        versions = self.versions[job_id]
        swaps = [(before, after) for before, after in pairwise(versions) if before.status is Status.PROCESSING]
        by_its_worker = (Status.RETRYING, Status.HELD)
        return {
            before.attempt
            for before, after in swaps
            if after.generation > before.generation and after.status not in by_its_worker and not after.is_resumable
        }

    def record_result(self, result: Result) -> None:
        self.results.setdefault((result.job_id, result.attempt), []).append(result)

    def check_shown_text(self, job_id: str, attempt: int, text: str) -> None:
        """Check that a subscriber's text is the beginning of one response."""
        log = self.response_of(job_id, attempt)
        sent = log.sent if log else ""
        self._expect(sent.startswith(text), f"a subscriber of {job_id[-3:]} a{attempt} holds {text!r}, the provider sent {sent!r}")

    def _expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)
