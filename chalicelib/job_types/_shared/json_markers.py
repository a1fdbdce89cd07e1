"""What can be seen in a JSON answer while it is written.

Quotation marks inside a JSON string are escaped, so what an answer quotes is never taken for one of its fields. A number counts once what
follows it is there: `1` may become `10`.
"""

from __future__ import annotations

import re

from chalicelib.domain.jobs.job_type import Marker

GAP = r"\s{0,16}"
NUMBER = r"-?\d{1,4}(?:\.\d{1,8})?"


def stage_at_field(field: str, stage: str) -> Marker:
    """The first time that a field is named, its stage begins."""
    return Marker(pattern=re.compile(rf'"{field}"{GAP}:'), stage=stage, once=True)


def stage_at_object(field: str, stage: str) -> Marker:
    """As `begins`, for a field that is an object, so that a plain one of the same name elsewhere is none."""
    return Marker(pattern=re.compile(rf'"{field}"{GAP}:{GAP}\{{'), stage=stage, once=True)


def milestone_at_field(field: str, milestone: str, description: str) -> Marker:
    """The first time that a field is named, what stands before it is done."""
    return Marker(pattern=re.compile(rf'"{field}"{GAP}:'), milestone=milestone, description=description, once=True)


def milestone_each(field: str, words: tuple[str, ...], milestone: str, description: str) -> Marker:
    """Every time that a field has one of these words, by its own name."""
    return Marker(pattern=_worded(field, words), milestone=milestone, description=description)


def milestone_once(field: str, words: tuple[str, ...], milestone: str, description: str) -> Marker:
    """The first time that a field has one of these words, by its own name."""
    return Marker(pattern=_worded(field, words), milestone=milestone, description=description, once=True)


def milestone_score(field: str, milestone: str, description: str) -> Marker:
    """The first time that a field has a number, as `{score}`."""
    pattern = re.compile(rf'"{field}"{GAP}:{GAP}(?P<score>{NUMBER}){GAP}[,}}\]]')
    return Marker(pattern=pattern, milestone=milestone, description=description, once=True)


def _worded(field: str, words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf'"{field}"{GAP}:{GAP}"(?P<{field}>{"|".join(words)})"')
