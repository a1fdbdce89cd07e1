"""The queue message. It is only a wake-up call: the record decides."""

from __future__ import annotations

import json
from dataclasses import dataclass

from chalicelib.domain.errors import InvalidMessage
from chalicelib.domain.ids import is_job_id


@dataclass(frozen=True, slots=True)
class WakeUp:
    """`generation` must be the record's when the message is read; otherwise it is a late or doubled one, and is dropped."""

    job_id: str
    generation: int

    def to_json(self) -> str:
        return json.dumps({"job_id": self.job_id, "generation": self.generation})

    @classmethod
    def from_json(cls, body: str) -> WakeUp:
        """Read a message.

        Raises:
            BadMessage: it is not ours; the message says what is wrong with it.
        """
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as exc:  # lists within lists without end
            raise InvalidMessage("The message is not JSON.") from exc
        job_id, generation = (data.get("job_id"), data.get("generation")) if isinstance(data, dict) else (None, None)
        if not isinstance(job_id, str) or not is_job_id(job_id) or isinstance(generation, bool) or not isinstance(generation, int):
            raise InvalidMessage('A wake-up is {"job_id": "job_...", "generation": 1}.')
        return cls(job_id, generation)
