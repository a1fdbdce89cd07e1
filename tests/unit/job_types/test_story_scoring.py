"""Local story scoring: deterministic, within its bounds, and marked as a local fallback."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import job_types
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.validation.schema import problems
from chalicelib.job_types._shared.story_scoring import CARE, HARM, MEASURING, PROMISING, score_story
from chalicelib.job_types.story_enhancement import INPUT_SCHEMA, RESPONSE_SCHEMA, dedupe_key

FALLBACKS = [kind for kind in job_types.all_types() if kind.fallback]
TEXTS = st.one_of(
    st.text(st.characters(codec=None), min_size=1, max_size=400),
    st.lists(st.sampled_from(sorted(PROMISING | MEASURING | HARM | CARE)), min_size=1, max_size=60).map(" ".join),
    st.sampled_from(["!" * 5_000, "A" * 50_000, "ẞﬃİ\u0301" * 99, "\ud800", "\x00", "你好。" * 999, "👩‍👩‍👧 " * 99, " \n\t "]),
)
STORIES = st.fixed_dictionaries(
    {"title": TEXTS.map(lambda text: text[:500]), "content": TEXTS},
    optional={"sector": TEXTS.map(lambda text: text[:100]), "impact_tags": st.lists(TEXTS.map(lambda text: text[:100]), max_size=20)},
)


@given(story=STORIES)
def test_any_story_gets_a_deterministic_answer_that_matches_the_schema(story: dict[str, Any]) -> None:
    """It has no broken surrogates, so it can be sent."""
    answer = score_story(story, {})

    assert problems(RESPONSE_SCHEMA, answer) == ()
    assert answer["source"] == "local_fallback"
    assert json.dumps(answer, ensure_ascii=False) == repair_surrogates(json.dumps(answer, ensure_ascii=False))
    assert score_story(story, {}) == answer


def test_the_largest_story_is_scored_within_a_second() -> None:
    story = {"title": "x" * 500, "content": "miracle! " * 11_000}
    assert problems(INPUT_SCHEMA, story) == ()

    began = time.perf_counter()
    answer = score_story(story, {})

    assert time.perf_counter() - began < 1.0
    assert answer["hype_score"] == 10


def test_the_hype_score_rises_with_promises_and_falls_with_measurements() -> None:
    def hype(content: str) -> float:
        return float(score_story({"title": "A battery", "content": content}, {})["hype_score"])

    plain = hype("A company has built a battery and sells it.")
    loud = hype("A REVOLUTIONARY breakthrough! This miracle battery will transform everything forever!!!")
    sober = hype("In a study of 40 samples, measured data suggests a median gain of 3 percent; limitations may apply.")

    assert sober < plain < loud


def test_the_ethics_score_falls_with_harm_and_rises_with_care() -> None:
    def ethics(content: str, *tags: str) -> float:
        return float(score_story({"title": "A camera", "content": content, "impact_tags": list(tags)}, {})["ethics_score"])

    plain = ethics("A city buys cameras.")

    assert ethics("A city buys cameras for surveillance.") < plain
    assert ethics("A city buys cameras.", "surveillance") < plain
    assert ethics("A city buys cameras, with consent and independent oversight.") > plain == 5


def test_a_local_score_says_that_no_model_has_read_the_story() -> None:
    """It has no claims and no simplified summary."""
    story = {"title": "A miracle!", "content": "It cures everything. Always. More text follows."}

    answer = score_story(story, {})

    assert answer["claims"] == []
    assert answer["reality_check"].startswith("No model has read this story.")
    assert answer["eli5_summary"] == "The beginning of the story, not simplified: It cures everything. Always."
    assert "“miracle”" in answer["hype_signals"]


@pytest.mark.parametrize("kind", FALLBACKS, ids=lambda kind: kind.name)
def test_job_types_with_a_fallback_have_input_and_response_schemas(kind: Any) -> None:
    """A fallback must be repeatable from the stored input."""
    assert kind.input_schema is not None
    assert kind.response_schema is not None


@pytest.mark.parametrize(
    ("story", "same"),
    [
        ({"title": "ﬁrst  STORY\n", "content": "Caf\u00e9 body"}, True),
        ({"title": "first story", "content": "cafe\u0301 BODY", "sector": "other", "impact_tags": ["x"]}, True),
        ({"title": "first story café", "content": "body"}, False),
        ({"title": "first story", "content": "café body."}, False),
    ],
)
def test_equal_stories_share_a_dedupe_key_however_they_are_written(story: dict[str, Any], same: bool) -> None:
    """Only title and content count, and so does the border between them."""
    name = dedupe_key({"title": "First story", "content": "café body"})

    assert (dedupe_key(story) == name) is same
    assert len(name) < 64


@given(story=STORIES)
def test_every_story_has_a_dedupe_key(story: dict[str, Any]) -> None:
    assert dedupe_key(story).startswith("story:")
