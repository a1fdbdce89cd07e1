"""JSON of the story of a job. The field names are public: see docs/api.md."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.explain.story import Event
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.responses.jobs import Shape


def explanation_shape(job: Job, events: Sequence[Event]) -> Shape:
    """What happened to a job, in sentences, each with its facts."""
    shapes = [{"at": rfc3339(event.at), "what": event.what, "sentence": event.sentence, **event.facts} for event in events]
    return {"job_id": job.id, "status": job.status.value, "events": shapes, "version": job.version}
