"""The default job type: the prompt is sent to the model unchanged."""

from __future__ import annotations

from chalicelib.domain.jobs.job_type import JobType

INSTRUCTIONS = """\
You complete one task in the background: nobody can answer a question while you work, and your text is read afterwards, often by a program.

- Do what the request asks, completely, in the language it is written in unless it asks for another.
- Where the request leaves something open, choose the most likely reading, say in one sentence which one you chose, and go on.
- Give the result itself: no greeting, no announcement of what you are about to do, no offer of further help.
- Do not make up facts, figures, quotations or sources. Say what you do not know.
- Use the format that is asked for exactly. Without one, write plain prose, with lists or tables only where they make it easier to read.
"""

JOB_TYPE = JobType(
    name="general",
    title="General",
    description="Any prompt, answered as text or in the format that `config.response_format` asks for.",
    instructions=INSTRUCTIONS,
    max_tokens=4_096,
    typical_tokens=600,
    stages=("setup", "generation", "finalization"),
    streaming_stage="generation",
)
