"""One attempt of a job, as its worker holds it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cached_property

from chalicelib.domain.execution.progress import ProgressTracker
from chalicelib.domain.execution.response_cache import CachedResponse, CacheLookup
from chalicelib.domain.execution.result import Result
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobSpec, requested_tier
from chalicelib.domain.limits.admission import RunNow
from chalicelib.domain.metrics.estimate import REQUEST_TOKENS, estimate_tokens
from chalicelib.domain.metrics.throughput import UNMEASURED
from chalicelib.domain.streaming.frames import Frame
from chalicelib.domain.text import split_text
from chalicelib.domain.units import Ms
from chalicelib.ports import Price
from chalicelib.services.prompts.model_request import instructions
from chalicelib.services.worker.attempt_output import AttemptOutput

CACHED_DELTAS = 100  # a cached response is read in so many parts, so that its milestones come where they were


class Attempt:
    """What the worker knows of the attempt; `output` is what its readers see.

    Args:
        job: the job record as claimed.
        owner: nonce of this claim (protocol rule 3: the owner is a nonce).
        admission: what the gates granted: the model, a circuit breaker's probe, the slots that the claim took.
        chunks: the stored transcript, of a durable attempt that another worker began.
    """

    def __init__(
        self, job: Job, spec: JobSpec, kind: JobType, owner: str, now: Ms, admission: RunNow, chunks: Sequence[Chunk] = ()
    ) -> None:
        tracker = ProgressTracker(kind, min(kind.typical_tokens, spec.config.max_tokens))
        tracker.calibrate(UNMEASURED, spec.config.max_tokens)
        self.job = job  # as claimed, then as ended
        self.spec = spec
        self.kind = kind
        self.owner = owner
        self.admission = admission
        self.output = AttemptOutput(job.attempt, kind, tracker, durable=spec.config.durable)
        self.generation = job.generation
        self.started_at = job.response_at or now
        self.response_id = job.response_id  # of a durable attempt
        self.response_started = job.is_resumable  # the provider has created a response: it charges from here on
        self.refused = False  # the model refused to answer
        self.last_message_at = 0  # where in the text the last message of the response begins, as far as it is known
        self.used_fallback = False  # the type's own fallback answers, and no provider
        self.cache_lookup: CacheLookup | None = None  # what the response cache said, if it was asked
        self.cache_key = ""
        self.price: Price | None = None  # looked up off the event loop: loading the price list takes a quarter of a second
        self.calls = 0  # requests to the provider for this attempt, by all its workers
        self.final_frame: Frame | None = None  # tells subscribers how the attempt ended
        self.watched_until: Ms = 0  # a long-polling reader is present until then
        self.resumed_at, self.cpu_at_start = now, time.process_time()
        self.cancelled = asyncio.Event()
        if job.cancel_requested:
            self.cancelled.set()
        if chunks:
            self.calls = self.output.resume(chunks, self.started_at)
        self.output.begin(now)

    @property
    def number(self) -> int:
        return self.output.transcript.attempt

    @cached_property
    def input_tokens(self) -> int:
        """Estimate of the request's tokens until the provider counts them; takes some milliseconds, so it is made once."""
        return estimate_tokens(self.spec.prompt) + estimate_tokens(instructions(self.spec.config, self.kind)) + REQUEST_TOKENS

    @property
    def asked_tier(self) -> str | None:
        """The service tier that the caller asked for."""
        return requested_tier(self.spec.config.openai)

    @property
    def wrong_before(self) -> str | None:
        """What was wrong with the last invalid answer of this run; None: there was none.

        Attempts in between that failed in another way, such as by a rate limit, do not matter.
        """
        return self.job.invalid_answer

    @property
    def is_cached(self) -> bool:
        """Whether another job's response is the answer: the provider was not asked."""
        return self.cache_lookup is not None and self.cache_lookup.hit

    @property
    def is_free(self) -> bool:
        """Whether no provider is asked: the answer is cached or the type's own, or the type has a task handler."""
        return self.used_fallback or self.is_cached or self.kind.handler is not None

    def use_cached_response(self, cached: CachedResponse, answer: Result, now: Ms) -> None:
        """Take another job's response as the answer. It counts the tokens that it had, and costs nothing."""
        self.cache_lookup = CacheLookup(job_id=cached.job_id, at=cached.stored_at)
        self.output.start_stage(self.kind.stages[1], now)
        size = max(1, -(-len(answer.text) // CACHED_DELTAS))
        left, parts = answer.usage.output if answer.usage else 0, -(-len(answer.text) // size)
        for number, piece in enumerate(split_text(answer.text, size)):
            tokens = left // (parts - number)
            left -= tokens
            self.output.append_counted(piece, now, tokens)

    def finish(self, job: Job, final_frame: Frame | None) -> None:
        """The job record says how the attempt ended; `final_frame` tells subscribers."""
        self.job, self.final_frame = job, final_frame
        self.output.finish()
