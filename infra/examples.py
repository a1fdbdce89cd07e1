"""The example of each job type: a file in `examples/` and the command that submits it."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.jobs.submission import Submission
from infra.chalice_config import ROOT

FOLDER = "examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """`reply` is a file with a realistic model answer, for tests and for the mock of the demo."""

    file: str
    reply: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_input(self) -> bool:
        return self.file.endswith(".json")

    def submission(self, job_type: str) -> Submission:
        """The submission that the command sends."""
        text = (ROOT / FOLDER / self.file).read_text(encoding="utf-8")
        content: dict[str, Any] = {"input": json.loads(text)} if self.is_input else {"prompt": text}
        return Submission(job_type=job_type, options=self.options, **content)

    def answer(self) -> str:
        """The text of `reply`; empty if there is none."""
        return (ROOT / FOLDER / self.reply).read_text(encoding="utf-8") if self.reply else ""

    def command(self, job_type: str) -> str:
        words = ["headrace", "submit", "--type", job_type, "--input" if self.is_input else "--file", f"{FOLDER}/{self.file}"]
        for name, value in self.options.items():
            words += ["-o", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        return shlex.join([*words, "--watch"])


EXAMPLES = {
    "code_review": Example(file="order_export.py.txt", reply="order_export.reply.json", options={"code_language": "Python 3.11"}),
    "content_generation": Example(
        file="library_brief.txt", reply="library_brief.reply.json", options={"format": "blog_post", "tone": "friendly", "length": "short"}
    ),
    "general": Example(file="question.txt"),
    "learning_insights": Example(
        file="fractions_answers.txt", reply="fractions_answers.reply.json", options={"material": "learner_answers", "questions": 3}
    ),
    "reflection_processing": Example(file="reflection.txt", reply="reflection.reply.json"),
    "security_analysis": Example(
        file="vulnerable_vault.sol", reply="vulnerable_vault.reply.json", options={"focus": ["reentrancy", "access_control"]}
    ),
    "sentiment_analysis": Example(file="hotel_reviews.txt", reply="hotel_reviews.reply.json", options={"aspects": ["staff", "breakfast"]}),
    "story_enhancement": Example(file="story.json", reply="story.reply.json"),
    "transcript_analysis": Example(file="debate.json", reply="debate.reply.json"),
}

# Job types that call no model. `import` has no example, because it needs an uploaded file.
EXAMPLES_WITHOUT_MODEL = {
    "cache_warmup": Example(file="warm_up.json"),
    "data_cleanup": Example(file="clean_up.json"),
    "export": Example(file="export.json"),
    "notification": Example(file="notification.json"),
}
