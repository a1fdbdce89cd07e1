"""A story scored by its words alone, on the spot: what is answered where no model can be asked, and before one has.

It counts words that promise, words that measure, words of harm and of care, and says so. It knows English words only, and it understands
nothing: a story in another language gets the scores of one in which nothing was found.
"""

from __future__ import annotations

import json
import re
from typing import Any

from chalicelib.domain.text import repair_surrogates

SOURCE = "local_fallback"


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
MAX_ITEMS = 3  # words alone move the ethics no further from the middle: they may be there to deny what they name


def as_json(given: Any) -> str:
    """The story in one form, whatever of it was given."""
    return json.dumps({name: given.get(name) for name in ("title", "content", "sector", "impact_tags")}, ensure_ascii=False, indent=1)


def score_story(given: Any, _options: dict[str, Any]) -> dict[str, Any]:
    """An answer of the type's own shape, the same for the same story."""
    title, content = repair_surrogates(given["title"]), repair_surrogates(given["content"])
    text = f"{title}\n{content}"
    spoken = [word.casefold() for word in WORD.findall(text)]
    words = [*spoken, *(word.casefold() for tag in given.get("impact_tags") or [] for word in WORD.findall(repair_surrogates(tag)))]
    promising, measuring = _found(spoken, PROMISING), _found(spoken, MEASURING)
    harm, care = _found(words, HARM), _found(words, CARE)
    marks, shouted = text.count("!"), sum(len(word) > 3 and word.isupper() for word in WORD.findall(text))
    per_hundred = 100 / max(100, len(spoken))
    hype = 3 + (len(promising) * 1.5 + min(marks, 6) * 0.5 + min(shouted, 6) * 0.5 - len(measuring)) * per_hundred
    ethics = 5 + max(-MAX_ITEMS, min(MAX_ITEMS, len(set(care)) - len(set(harm))))
    return {
        "claims": [],
        "reality_check": (
            f"No model has read this story. By its words alone: {len(promising)} that promise, {len(measuring)} that measure or limit, "
            f"{marks} exclamation marks, in {len(spoken)} words. Whether its claims hold was not looked at."
        ),
        "hype_signals": _named(promising),
        "hype_score": _bounded(hype),
        "ethics_signals": [*_named(harm), *_named(care)],
        "ethics_score": _bounded(ethics),
        "eli5_summary": f"In its own words, not simplified: {_beginning(content)}",
        "why_it_matters": f"Not judged. The story is called: {_cut(title)}",
        "source": SOURCE,
    }


def _found(words: list[str], known: frozenset[str]) -> list[str]:
    return [word for word in words if word in known]


def _named(words: list[str]) -> list[str]:
    return [f"“{word}”, {words.count(word)} times" if words.count(word) > 1 else f"“{word}”" for word in list(dict.fromkeys(words))[:10]]


def _bounded(score: float) -> float:
    return round(min(10.0, max(0.0, score)), 1)


def _beginning(content: str) -> str:
    """The first two sentences, as far as they are short."""
    return _cut(" ".join(" ".join(SENTENCE_END.split(content[: MAX_EXCERPT * 4].strip())[:2]).split()))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 1].rstrip() + "…"
