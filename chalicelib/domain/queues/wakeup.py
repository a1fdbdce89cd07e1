"""Define the queue message of a job. It only wakes a worker; the job record decides what happens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.errors import InvalidMessage
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.units import Ms

GRANT_MS = 3_000  # how long a grant is good


@dataclass(frozen=True, slots=True)
class Grant:
    """What a scheduler has taken for a job that it releases, so that the job need not ask for it."""

    cause: str  # what the job waited for
    at: Ms  # when it was taken; it is good for some seconds
    tokens: int = 0  # what was charged against a token rate

    def is_valid(self, now: Ms) -> bool:
        """Whether what was taken still counts for the job; later it asks as any other."""
        return -GRANT_MS < now - self.at < GRANT_MS


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A wake-up for a job. It is dropped if the record has another generation when it is read."""

    job_id: str
    generation: int
    grant: Grant | None = None  # None: it comes from no scheduler, or nothing was taken

    def to_json(self) -> str:
        grant = {} if self.grant is None else {"grant": [self.grant.cause, self.grant.at, self.grant.tokens]}
        return json.dumps({"job_id": self.job_id, "generation": self.generation, **grant})

    @classmethod
    def from_json(cls, text: str) -> WakeUp:
        """Parse a message.

        Raises:
            InvalidMessage: it is not a wake-up; the error says what is wrong with it.
        """
        try:
            data = json_limits.loads(text)
        except ValueError as exc:
            raise InvalidMessage("The message is not JSON.") from exc
        job_id, generation = (data.get("job_id"), data.get("generation")) if isinstance(data, dict) else (None, None)
        if not isinstance(job_id, str) or not is_job_id(job_id) or isinstance(generation, bool) or not isinstance(generation, int):
            raise InvalidMessage('The message is not a wake-up, such as {"job_id": "job_...", "generation": 1}.')
        return cls(job_id, generation, _grant_of(data.get("grant")))


def _grant_of(value: Any) -> Grant | None:
    """Return the grant of a message; None if there is none that this version of the code can read."""
    match value:
        case [str(cause), int(at), int(tokens), *_]:
            return Grant(cause, at, tokens)
    return None
