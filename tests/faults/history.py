"""What happened in a run that the stores do not remember, and what is wrong with it the moment it happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.transitions import waits_for_parents

LEGAL: frozenset[tuple[Status, Status]] = frozenset(
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
)  # docs/states.md, and the looks that leave a job where it is; a deletion marks a failed one


@dataclass(eq=False)
class Answered:
    """One response of the provider: what it sent, and what it charged if its final event was read."""

    job_id: str
    attempt: int
    number: int
    sent: str = ""
    charged: Usage | None = None
    closed: bool = False


@dataclass(eq=False)
class History:
    """Every head that was ever written, every request to the provider, every result. `problems` are rules that were broken.

    `let_go`: what had ended each time that a job was let go which waited for its parents.
    """

    heads: dict[str, list[Job]] = field(default_factory=dict)
    answers: list[Answered] = field(default_factory=list)
    results: dict[tuple[str, int], list[Result]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    found: dict[tuple[str, int], Answered] = field(default_factory=dict)
    ends: set[str] = field(default_factory=set)  # what has ended so far, by no clock
    let_go: dict[str, list[frozenset[str]]] = field(default_factory=dict)

    def made(self, job: Job) -> None:
        if job.id in self.heads:
            self.problems.append(f"{job.id} was made twice")
        self.heads.setdefault(job.id, []).append(job)

    def wrote(self, before: Job, after: Job) -> None:
        """A swap that took effect."""
        self.heads[before.id].append(after)
        if after.status.is_terminal:
            self.ends.add(after.id)
        if waits_for_parents(before) and not after.status.is_terminal and not waits_for_parents(after):
            self.let_go.setdefault(after.id, []).append(frozenset(self.ends))
        name = f"{before.id[-3:]} {before.status}->{after.status}"
        legal = (before.status, after.status) in LEGAL
        self._expect(legal, f"{name} is no arrow of docs/states.md")
        self._expect(after.version == before.version + 1, f"{name}: the version went from {before.version} to {after.version}")
        self._expect(after.generation >= before.generation, f"{name}: the generation shrank")
        self._expect(after.attempt >= before.attempt, f"{name}: the attempt shrank")
        self._expect(after.attempt <= before.attempt + 1, f"{name}: an attempt number was left out")
        self._expect((after.due_at is None) == after.status.is_terminal, f"{name}: due_at is {after.due_at}")
        if after.is_deleted:
            return
        given_back = after.status in (Status.RETRYING, Status.QUEUED, Status.HELD) and before.status is Status.PROCESSING
        if before.status.is_terminal or given_back:
            self._expect(after.generation > before.generation, f"{name}: queued anew under the same generation")
        if before.cancel_requested and before.run == after.run:
            self._expect(after.status is not Status.COMPLETED, f"{name}: completed over a cancel flag")

    def asked(self, job_id: str, attempt: int) -> Answered:
        self._expect(
            all((one.job_id, one.attempt) != (job_id, attempt) for one in self.answers),
            f"{job_id[-3:]} asked the provider twice for attempt {attempt}",
        )
        answer = Answered(job_id, attempt, len(self.answers) + 1)
        self.answers.append(answer)
        return answer

    def answer_of(self, job_id: str, attempt: int) -> Answered | None:
        given = next((one for one in self.answers if (one.job_id, one.attempt) == (job_id, attempt)), None)
        return given or self.found.get((job_id, attempt))

    def hit(self, job_id: str, attempt: int, source: Answered) -> None:
        """An attempt was told whose answer it may have: it costs nothing. It may ask the provider all the same."""
        self.found[job_id, attempt] = Answered(job_id, attempt, source.number, source.sent, Usage())

    def taken_back(self, job_id: str) -> set[int]:
        """The attempts that the sweep took from a worker, dead or not."""
        heads = self.heads[job_id]
        swaps = [(before, after) for before, after in pairwise(heads) if before.status is Status.PROCESSING]
        away = (Status.RETRYING, Status.HELD)
        return {
            before.attempt
            for before, after in swaps
            if after.generation > before.generation and after.status not in away and not after.is_resumable
        }

    def kept(self, result: Result) -> None:
        self.results.setdefault((result.job_id, result.attempt), []).append(result)

    def shown(self, job_id: str, attempt: int, text: str) -> None:
        """What a watcher holds after a frame: always the beginning of one answer."""
        answer = self.answer_of(job_id, attempt)
        sent = answer.sent if answer else ""
        self._expect(sent.startswith(text), f"a watcher of {job_id[-3:]} a{attempt} holds {text!r}, the provider sent {sent!r}")

    def _expect(self, fine: bool, problem: str) -> None:
        if not fine:
            self.problems.append(problem)
