"""Define the queue message of a job. It only wakes a worker; the job record decides what happens."""

from __future__ import annotations

import json
from dataclasses import dataclass

from chalicelib.domain import json_limits
from chalicelib.domain.errors import InvalidMessage
from chalicelib.domain.ids import is_job_id


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A wake-up for a job. It is dropped if the record has another generation when it is read."""

    job_id: str
    generation: int

    def to_json(self) -> str:
        return json.dumps({"job_id": self.job_id, "generation": self.generation})

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
        return cls(job_id, generation)
