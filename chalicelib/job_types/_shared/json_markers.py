"""Make markers that find stages and milestones in a JSON answer while it is streamed.

Quotation marks inside a JSON string are escaped, so quoted text is never mistaken for a field. A
number matches only with the character after it, because `1` may become `10`.
"""

from __future__ import annotations

import re

from chalicelib.domain.jobs.job_type import Marker

GAP = r"\s{0,16}"
NUMBER = r"-?\d{1,4}(?:\.\d{1,8})?"


def stage_at_field(field: str, stage: str) -> Marker:
    """Start a stage at the first occurrence of a field."""
    return Marker(pattern=re.compile(rf'"{field}"{GAP}:'), stage=stage, once=True)


def stage_at_object(field: str, stage: str) -> Marker:
    """Start a stage at the first occurrence of a field whose value is an object."""
    return Marker(pattern=re.compile(rf'"{field}"{GAP}:{GAP}\{{'), stage=stage, once=True)


def milestone_at_field(field: str, milestone: str, description: str) -> Marker:
    """Report a milestone at the first occurrence of a field: the fields before it are complete."""
    return Marker(pattern=re.compile(rf'"{field}"{GAP}:'), milestone=milestone, description=description, once=True)


def milestone_each(field: str, values: tuple[str, ...], milestone: str, description: str) -> Marker:
    """Report a milestone each time that a field has one of these values.

    The texts may use it as `{<field>}`.
    """
    return Marker(pattern=_value_pattern(field, values), milestone=milestone, description=description)


def milestone_once(field: str, values: tuple[str, ...], milestone: str, description: str) -> Marker:
    """Report a milestone the first time that a field has one of these values.

    The texts may use it as `{<field>}`.
    """
    return Marker(pattern=_value_pattern(field, values), milestone=milestone, description=description, once=True)


def milestone_score(field: str, milestone: str, description: str) -> Marker:
    """Report a milestone the first time that a field has a number.

    The texts may use it as `{score}`.
    """
    pattern = re.compile(rf'"{field}"{GAP}:{GAP}(?P<score>{NUMBER}){GAP}[,}}\]]')
    return Marker(pattern=pattern, milestone=milestone, description=description, once=True)


def _value_pattern(field: str, values: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf'"{field}"{GAP}:{GAP}"(?P<{field}>{"|".join(values)})"')
