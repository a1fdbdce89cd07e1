"""Give a request with an Idempotency-Key its effect once, even if it is sent several times."""

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
    """A request with an Idempotency-Key."""

    scope: str  # JSON of tenant, user and route: the same key in another scope is another key
    key: str  # as the client sent it
    fingerprint: str  # hash of the request, which tells it from another request with the same key

    @classmethod
    def of(cls, caller: Caller, route: str, key: str, request: Any) -> IdempotentRequest:
        scope = json.dumps([caller.tenant, caller.user, route])
        return cls(scope, key, sha256(json.dumps(request, sort_keys=True).encode()).hexdigest())

    def to_record(self, now: Ms, *, position: int = 0, generation: int = 0) -> IdempotencyRecord:
        """Return the record to store for this request. It expires after a day."""
        return IdempotencyRecord(
            scope=self.scope,
            key=self.key,
            fingerprint=self.fingerprint,
            position=position,
            generation=generation,
            expires_at=now + DAY_MS,
        )

    def lookup(self, jobs: Jobs, now: Ms) -> IdempotentResult | None:
        """Return the stored result of this request; None if it is new.

        Raises:
            IdempotencyConflict: the key belongs to another request.
        """
        result = jobs.get_idempotency(self.scope, self.key, now)
        if result is not None and result.fingerprint != self.fingerprint:
            raise IdempotencyConflict
        return result

    def claim(self, jobs: Jobs, now: Ms, new_id: str) -> str:
        """Return the id that the request creates: `new_id`, or that of an earlier copy.

        The claim is stored before anything is created, so that a repeated request resumes what the
        first one may have started.

        Raises:
            IdempotencyConflict: the key belongs to another request.
        """
        result = self.lookup(jobs, now)
        if result is None:
            try:
                jobs.save_idempotency(self.to_record(now), new_id, now)
            except IdempotencyKeyTaken:  # a concurrent copy of this request came first
                result = self.lookup(jobs, now)
                if result is None:
                    raise Throttled from None
        return result.job_id if result is not None else new_id
