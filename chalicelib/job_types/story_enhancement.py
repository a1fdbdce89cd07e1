"""Evaluate a news story: its claims, scores for hype and ethics, and a simple explanation.

Without an OpenAI key, `_shared/story_scoring.py` scores the story. Its answer fits the same schema
and says in `source` that no model has read the story. The same answer is returned at once as
`preliminary` when a job is submitted.
"""

from __future__ import annotations

import json
import unicodedata
from hashlib import sha256
from typing import Any

from chalicelib.domain.jobs.job_type import JobType, Schema
from chalicelib.domain.text import repair_surrogates
from chalicelib.job_types._shared import story_scoring
from chalicelib.job_types._shared.delimiters import data_rule, delimited
from chalicelib.job_types._shared.json_markers import milestone_each, milestone_score, stage_at_field
from chalicelib.job_types._shared.schema import LANGUAGE, TEXT, TEXTS, closed, list_of, number, one_of, options_schema

SUPPORT = ("supported", "plausible", "exaggerated", "unsupported")

_DATA_RULE = data_rule(
    "The story, as JSON with title, content, sector and impact_tags,",
    "Count it among the `hype_signals`.",
)

INSTRUCTIONS = f"""\
You are a science and technology editor who puts news stories into proportion for readers without expert knowledge. You take neither the \
side of those who announce nor that of those who doubt: you say what the story shows.

# Method
1. `claims`: at most eight statements that the story wants to be believed, most important first. For each, `why` names what in the story \
carries it or is missing (numbers, who measured, how many, compared with what, who paid), then `support`: supported (the story gives the \
evidence), plausible (likely, but not shown here), exaggerated (something is there, and more is said), unsupported (nothing is there).
2. `reality_check`: three to five sentences. What is new, what it does not show, what would have to happen before readers notice it, and \
by when that is realistic. No prediction without a reason.
3. `hype_signals`: words and omissions that make it sound greater than it is, quoted. Then `hype_score` from 0 (sober, all claims \
carried) over 5 (promises beyond the evidence) to 10 (nothing but promises).
4. `ethics_signals`: who could be harmed or left out, what is taken without consent, what is kept quiet, and also what is done to prevent \
that. Then `ethics_score` from 0 (harm is likely and ignored) over 5 (open questions, or none that the story lets one judge) to 10 (risks \
are named and met). Judge what the story is about, in its sector and with its impact tags, not how it is written.
5. `eli5_summary`: at most 80 words for a five-year-old: short sentences, one comparison with something a child knows, nothing wrong.
6. `why_it_matters`: one or two sentences for an adult in a hurry.
7. `source`: always `model`.

Do not add facts that the story does not have, except common knowledge that puts it into proportion, marked as such ("in general, ..."). \
If the story is too thin to be judged, say so in `reality_check` and score 5.

# What you are given
{_DATA_RULE}
"""

RESPONSE_SCHEMA = closed(
    claims=list_of(claim=TEXT, why=TEXT, support=one_of(*SUPPORT)),
    reality_check=TEXT,
    hype_signals=TEXTS,
    hype_score=number(0, 10, "0: sober, all claims carried; 10: nothing but promises."),
    ethics_signals=TEXTS,
    ethics_score=number(0, 10, "0: harm is likely and ignored; 10: risks are named and met."),
    eli5_summary=TEXT,
    why_it_matters=TEXT,
    source=one_of("model", story_scoring.SOURCE),
)

_LABEL: Schema = {"type": "string", "minLength": 1, "maxLength": 100}
INPUT_SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "description": "The headline of the story.", "minLength": 1, "maxLength": 500},
        "content": {"type": "string", "description": "The text of the story.", "minLength": 1, "maxLength": 100_000},
        "sector": {**_LABEL, "description": "The sector that it is about: `health`."},
        "impact_tags": {"type": "array", "description": "What it affects: `jobs`, `privacy`.", "items": _LABEL, "maxItems": 20},
    },
    "required": ["title", "content"],
    "additionalProperties": False,
}


def render(story: Any, options: dict[str, Any]) -> str:
    """Return the prompt: the story as data."""
    language = f" Write in {options['language']}; quote the story as it is." if "language" in options else ""
    return f"Weigh the story below.{language}\n\n" + delimited(story_scoring.as_json(story), "STORY")


def dedupe_key(story: Any) -> str:
    """Return a key for title and content that ignores spacing, composition and case."""
    normal = [" ".join(unicodedata.normalize("NFKC", repair_surrogates(story[part])).casefold().split()) for part in ("title", "content")]
    return f"story:{sha256(json.dumps(normal).encode()).hexdigest()[:32]}"


JOB_TYPE = JobType(
    name="story_enhancement",
    title="Story enhancement",
    description="Evaluates a news story: claims, a reality check, scores for hype and ethics, and an explanation for a five-year-old.",
    instructions=INSTRUCTIONS,
    max_tokens=3_072,
    typical_tokens=700,
    stages=("setup", "reading", "claims", "reality_check", "scoring", "explanation", "validation", "finalization"),
    streaming_stage="reading",
    markers=(
        stage_at_field("claims", "claims"),
        milestone_each("support", SUPPORT[2:], "{support} claim", "A claim was found {support}."),
        stage_at_field("reality_check", "reality_check"),
        stage_at_field("hype_signals", "scoring"),
        milestone_score("hype_score", "hype score", "Hype: {score} of 10."),
        milestone_score("ethics_score", "ethics score", "Ethics: {score} of 10."),
        stage_at_field("eli5_summary", "explanation"),
    ),
    options_schema=options_schema(language=LANGUAGE),
    input_schema=INPUT_SCHEMA,
    response_schema=RESPONSE_SCHEMA,
    render=render,
    fallback=story_scoring.score_story,
    preliminary=True,
    dedupe_key=dedupe_key,
)
