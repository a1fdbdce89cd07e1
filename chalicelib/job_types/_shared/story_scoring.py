"""Score a story by its words: the fallback and preliminary answer of `story_enhancement`.

It counts words of hype, evidence, harm and care, and says so in its answer. It knows only English
words: a story in another language gets the scores of one in which no such word occurs.
"""

from __future__ import annotations

import json
import re
from typing import Any

from chalicelib.domain.text import repair_surrogates

SOURCE = "local_fallback"  # the `source` of its answers


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROMISING = _words(
    "revolutionary revolutionize revolutionise breakthrough miracle unprecedented unbelievable groundbreaking disruptive disrupt "
    "skyrocket insane magical guaranteed ultimate unstoppable incredible limitless flawless effortless instantly forever never always "
    "cure cures everything everyone transform transforms amazing stunning shocking unleash supercharge killer"
)
MEASURING = _words(
    "study trial sample measured percent compared limited limitations preliminary however peer reviewed data median average estimate "
    "margin error survey participants patients evidence according tested replicated may might could suggests uncertain"
)
HARM = _words(
    "surveillance biased bias discrimination layoffs fired lawsuit sued breach leaked leak weapon weapons military deepfake deepfakes "
    "scraped exploit exploited addiction addictive misinformation fraud unsafe deaths injured pollution secretly"
)
CARE = _words(
    "consent consented audit audited transparent transparency accessible accessibility inclusive safeguards oversight encrypted "
    "opt-in voluntary regulator regulators accountable accountability open-source nonprofit ethics fair fairness"
)
WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
MAX_EXCERPT = 280
# Words alone move the ethics score no further from the middle: they may be negated in the text.
MAX_ETHICS_SHIFT = 3


def as_json(story: Any) -> str:
    """Return the story as JSON that always has the same fields."""
    return json.dumps({name: story.get(name) for name in ("title", "content", "sector", "impact_tags")}, ensure_ascii=False, indent=1)


def score_story(story: Any, _options: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that fits the response schema of the type.

    The same story always gets the same answer.
    """
    title, content = repair_surrogates(story["title"]), repair_surrogates(story["content"])
    text = f"{title}\n{content}"
    spoken = [word.casefold() for word in WORD.findall(text)]
    words = [*spoken, *(word.casefold() for tag in story.get("impact_tags") or [] for word in WORD.findall(repair_surrogates(tag)))]
    promising, measuring = _matching(spoken, PROMISING), _matching(spoken, MEASURING)
    harm, care = _matching(words, HARM), _matching(words, CARE)
    marks, shouted = text.count("!"), sum(len(word) > 3 and word.isupper() for word in WORD.findall(text))
    per_hundred = 100 / max(100, len(spoken))
    hype = 3 + (len(promising) * 1.5 + min(marks, 6) * 0.5 + min(shouted, 6) * 0.5 - len(measuring)) * per_hundred
    ethics = 5 + max(-MAX_ETHICS_SHIFT, min(MAX_ETHICS_SHIFT, len(set(care)) - len(set(harm))))
    return {
        "claims": [],
        "reality_check": (
            f"No model has read this story. A count of its words found {len(promising)} that promise and {len(measuring)} that measure or "
            f"limit, and {marks} exclamation marks, in {len(spoken)} words. The claims were not checked."
        ),
        "hype_signals": _quote(promising),
        "hype_score": _clamp(hype),
        "ethics_signals": [*_quote(harm), *_quote(care)],
        "ethics_score": _clamp(ethics),
        "eli5_summary": f"The beginning of the story, not simplified: {_first_sentences(content)}",
        "why_it_matters": f"Not judged. The title of the story: {_truncate(title)}",
        "source": SOURCE,
    }


def _matching(words: list[str], known: frozenset[str]) -> list[str]:
    return [word for word in words if word in known]


def _quote(words: list[str]) -> list[str]:
    return [f"“{word}”, {words.count(word)} times" if words.count(word) > 1 else f"“{word}”" for word in list(dict.fromkeys(words))[:10]]


def _clamp(score: float) -> float:
    return round(min(10.0, max(0.0, score)), 1)


def _first_sentences(content: str) -> str:
    """Return the first two sentences, truncated to `MAX_EXCERPT`."""
    return _truncate(" ".join(" ".join(SENTENCE_END.split(content[: MAX_EXCERPT * 4].strip())[:2]).split()))


def _truncate(text: str) -> str:
    return text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 1].rstrip() + "…"
