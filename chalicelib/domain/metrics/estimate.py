"""What a job will probably cost and take, told before anything is paid.

Tokens are estimated without a tokenizer (its tables are megabytes, and a worker would load them for one number). The rule of thumb, after
how byte-pair vocabularies of OpenAI's size cut text; good to about a fifth, and rather above than below:

* a word of Latin letters with the space before it is one token for each started 6 letters, digits one for each started 3;
* punctuation and operators are one for each started 2, which is what makes code dearer than prose of its length;
* a line break with its indentation is one;
* an ideograph, kana or Hangul syllable is one; letters of other scripts are one for each started 2; an emoji is two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.queues.lanes import Lane
from chalicelib.domain.units import Ms, Nano

SAMPLING_THRESHOLD = 40_000  # code points; longer texts are estimated from as much of them
SAMPLES = 40

TOKENS_PER_SECOND = 60  # of one stream, a cautious figure for small models
FIRST_TOKEN_MS = 1_000
TASK_DURATION_MS = 5_000  # of work that is no answer of a model
OVERHEAD_MS = 300  # claim, validation and the terminal write
MARGIN = 1.25  # on the prompt's tokens in the worst case, because they are estimated
REQUEST_TOKENS = 10  # what the provider adds around the messages

_PIECES = re.compile(
    r"(?P<word>[A-Za-z\u00c0-\u024f]+)|(?P<digits>[0-9]+)|(?P<space>\s+)"
    r"|(?P<cjk>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff])"
    r"|(?P<emoji>[\u2600-\u27bf\U0001f000-\U0001faff])|(?P<other>[^\W\d_]+)|(?P<sign>[^\w\s]+|_+)|(?P<rest>.)",
    re.DOTALL,
)
_PER_TOKEN = {"word": 6, "digits": 3, "sign": 2, "other": 2, "cjk": 1}  # code points


class Priced(Protocol):
    """A price list of one model, as `ports.Price`."""

    def cost(self, usage: Usage) -> Nano: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`expected_cost`: the prompt and a typical answer, once. `max_cost`: every allowed attempt is paid to its last token, and made by
    the dearest of the models that may make it.

    Both are None where a price that they need is not known.
    """

    input_tokens: int
    output_tokens: int
    expected_cost: Nano | None
    max_cost: Nano | None
    wait_ms: Ms
    duration_ms: Ms  # from now to the end, `wait_ms` included


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has. Takes time for 40,000 code points at most: a longer text is sampled evenly."""
    if len(text) <= SAMPLING_THRESHOLD:
        return _count(text)
    size = SAMPLING_THRESHOLD // SAMPLES
    starts = [len(text) * index // SAMPLES for index in range(SAMPLES)]
    sampled = sum(_count(text[start : start + size]) for start in starts)
    return round(sampled * len(text) / SAMPLING_THRESHOLD)


def estimate(
    *,
    prompt: str,
    instructions: str,
    answer_tokens: int,
    max_tokens: int,
    max_attempts: int,
    price: Priced | None,
    lane: Lane,
    depth: int,
    others: Sequence[Priced | None] = (),
    first_token_ms: Ms = FIRST_TOKEN_MS,
    tokens_per_second: float = TOKENS_PER_SECOND,
) -> Estimate:
    """The estimate of a job that asks `prompt` with `instructions` (the type's, its system prompt, its schema), `depth` jobs waiting.

    `others` are the prices of the models that may stand in for its own. An answer usually has `answer_tokens`.
    """
    given = estimate_tokens(prompt) + estimate_tokens(instructions) + REQUEST_TOKENS
    answer = min(answer_tokens, max_tokens)
    wait = waiting_ms(lane, depth)
    return Estimate(
        input_tokens=given,
        output_tokens=answer,
        expected_cost=price.cost(Usage(input=given, output=answer)) if price else None,
        max_cost=_dearest([price, *others], Usage(input=ceil(given * MARGIN), output=max_tokens), max_attempts),
        wait_ms=wait,
        duration_ms=wait + working_ms(answer, tokens_per_second, first_token_ms),
    )


def estimate_task(lane: Lane, depth: int) -> Estimate:
    """Of work that asks no model: nothing to pay, and a guess of the time."""
    wait = waiting_ms(lane, depth)
    return Estimate(input_tokens=0, output_tokens=0, expected_cost=0, max_cost=0, wait_ms=wait, duration_ms=wait + TASK_DURATION_MS)


def working_ms(output_tokens: int, tokens_per_second: float = TOKENS_PER_SECOND, first_token_ms: Ms = FIRST_TOKEN_MS) -> Ms:
    """How long an attempt takes that answers with so many tokens."""
    return first_token_ms + OVERHEAD_MS + round(output_tokens * 1000 / tokens_per_second)


def waiting_ms(lane: Lane, depth: int, each_ms: Ms = 12_000) -> Ms:
    """How long `depth` jobs ahead take, `each_ms` of work each, when the lane is at its full width."""
    width = lane.max_concurrency * lane.batch_size
    return lane.window * 1000 + max(0, depth) * each_ms // width


def _dearest(prices: Sequence[Priced | None], usage: Usage, attempts: int) -> Nano | None:
    costs = [price.cost(usage) for price in prices if price is not None]
    return max(costs) * attempts if len(costs) == len(prices) else None


def _count(text: str) -> int:
    return sum(_tokens_of(match.lastgroup or "rest", match.group()) for match in _PIECES.finditer(text))


def _tokens_of(kind: str, piece: str) -> int:
    if kind == "space":
        return 0 if piece == " " else 1  # one space belongs to the word after it
    if kind == "emoji":
        return 2
    return -(-len(piece) // _PER_TOKEN.get(kind, 1))
