"""Requests that carry an Idempotency-Key: each has its effect once, however often it is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import IdempotencyConflict, IdempotencyKeyTaken, Throttled
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.ports import IdempotencyRecord, IdempotentResult, Jobs


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request by its key: `scope` is whose key it is, and for what; `fingerprint` tells the request from another with the same key."""

    scope: str
    key: str
    fingerprint: str

    @classmethod
    def of(cls, caller: Caller, route: str, key: str, request: Any) -> IdempotentRequest:
        scope = json.dumps([caller.tenant, caller.user, route])
        return cls(scope, key, sha256(json.dumps(request, sort_keys=True).encode()).hexdigest())

    def to_record(self, now: Ms, *, position: int = 0, generation: int = 0) -> IdempotencyRecord:
        """What is to be remembered of it for a day."""
        return IdempotencyRecord(
            scope=self.scope,
            key=self.key,
            fingerprint=self.fingerprint,
            position=position,
            generation=generation,
            expires_at=now + DAY_MS,
        )

    def lookup(self, jobs: Jobs, now: Ms) -> IdempotentResult | None:
        """What was answered to it already.

        Raises:
            IdempotencyConflict: the key stands for another request.
        """
        remembered = jobs.get_idempotency(self.scope, self.key, now)
        if remembered is not None and remembered.fingerprint != self.fingerprint:
            raise IdempotencyConflict
        return remembered

    def claim(self, jobs: Jobs, now: Ms, made: str) -> str:
        """What the request stands for: `made`, if it stood for nothing yet. It is remembered before anything is made, so that a repetition
        goes on with what whoever sent it first may have begun.

        Raises:
            IdempotencyConflict: the key stands for another request.
        """
        remembered = self.lookup(jobs, now)
        if remembered is None:
            try:
                jobs.save_idempotency(self.to_record(now), made, now)
            except IdempotencyKeyTaken:  # by the same request, at this moment
                remembered = self.lookup(jobs, now)
                if remembered is None:
                    raise Throttled from None
        return remembered.job_id if remembered is not None else made
