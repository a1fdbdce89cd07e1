"""Estimate the cost and duration of a job before anything is paid.

Tokens are estimated without a tokenizer, whose tables are megabytes that a worker would load for
one number. The rules below approximate how byte-pair vocabularies of OpenAI's size split text. They
are accurate to about 20 % and usually too high rather than too low. Tokens per piece, rounded
up:

* a word of Latin letters with the space before it: one per 6 letters; digits: one per 3;
* punctuation and operators: one per 2, which makes code more expensive than prose of the same
  length;
* a line break with its indentation: one;
* an ideograph, kana or Hangul syllable: one; letters of other scripts: one per 2; an emoji: two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.queues.lanes import JobQueue
from chalicelib.domain.units import Ms, Nano

# Code points; of longer texts, samples of this total length are counted.
SAMPLING_THRESHOLD = 40_000
SAMPLES = 40

TOKENS_PER_SECOND = 60  # of one stream; a conservative figure for small models
FIRST_TOKEN_MS = 1_000
TASK_DURATION_MS = 5_000  # of a job that asks no model
OVERHEAD_MS = 300  # claim, validation and the terminal write
MARGIN = 1.25  # added to the estimated tokens of the prompt in the maximum cost
REQUEST_TOKENS = 10  # what the provider adds around the messages

_PIECES = re.compile(
    r"(?P<word>[A-Za-z\u00c0-\u024f]+)|(?P<digits>[0-9]+)|(?P<space>\s+)"
    r"|(?P<cjk>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff])"
    r"|(?P<emoji>[\u2600-\u27bf\U0001f000-\U0001faff])|(?P<other>[^\W\d_]+)|(?P<sign>[^\w\s]+|_+)|(?P<rest>.)",
    re.DOTALL,
)
_PER_TOKEN = {"word": 6, "digits": 3, "sign": 2, "other": 2, "cjk": 1}  # code points


class Priced(Protocol):
    """The prices of one model; `ports.Price` satisfies it."""

    def cost(self, usage: Usage) -> Nano: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The estimate of one job. A cost is None if a price that it needs is unknown."""

    input_tokens: int
    output_tokens: int
    expected_cost: Nano | None  # one attempt with a typical answer
    # Every allowed attempt with the longest answer, from the most expensive of its models.
    max_cost: Nano | None
    wait_ms: Ms  # in the queue
    duration_ms: Ms  # from now to the end, `wait_ms` included


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of `text`.

    Texts above `SAMPLING_THRESHOLD` are sampled evenly, to bound the time.
    """
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
    queue: JobQueue,
    depth: int,
    others: Sequence[Priced | None] = (),
    first_token_ms: Ms = FIRST_TOKEN_MS,
    tokens_per_second: float = TOKENS_PER_SECOND,
) -> Estimate:
    """Estimate a job that asks a model.

    Args:
        prompt: The rendered prompt.
        instructions: Everything else that is sent: the type's instructions, the system prompt, the
            schema.
        answer_tokens: The usual length of an answer.
        max_tokens: The longest answer.
        max_attempts: How many attempts may be paid for.
        price: The prices of its model; None: unknown.
        queue: Its queue.
        depth: Jobs that wait in the queue before it.
        others: The prices of its fallback models.
        first_token_ms: Time to the first token.
        tokens_per_second: Speed of the stream.
    """
    input_tokens = estimate_tokens(prompt) + estimate_tokens(instructions) + REQUEST_TOKENS
    answer = min(answer_tokens, max_tokens)
    wait = waiting_ms(queue, depth)
    return Estimate(
        input_tokens=input_tokens,
        output_tokens=answer,
        expected_cost=price.cost(Usage(input=input_tokens, output=answer)) if price else None,
        max_cost=_highest_cost([price, *others], Usage(input=ceil(input_tokens * MARGIN), output=max_tokens), max_attempts),
        wait_ms=wait,
        duration_ms=wait + working_ms(answer, tokens_per_second, first_token_ms),
    )


def charged_tokens(expected: Estimate, max_tokens: int) -> int:
    """Return how many tokens OpenAI probably charges a request against the rate limit when it arrives.

    It counts the longest answer that was asked for. The estimate of the input is off by a tenth.
    """
    return round(expected.input_tokens * 1.1) + max_tokens


def estimate_task(queue: JobQueue, depth: int) -> Estimate:
    """Estimate a job that asks no model: it costs nothing, and its duration is a fixed guess."""
    wait = waiting_ms(queue, depth)
    return Estimate(input_tokens=0, output_tokens=0, expected_cost=0, max_cost=0, wait_ms=wait, duration_ms=wait + TASK_DURATION_MS)


def working_ms(output_tokens: int, tokens_per_second: float = TOKENS_PER_SECOND, first_token_ms: Ms = FIRST_TOKEN_MS) -> Ms:
    """Return how long an attempt with so many output tokens takes."""
    return first_token_ms + OVERHEAD_MS + round(output_tokens * 1000 / tokens_per_second)


def waiting_ms(queue: JobQueue, depth: int, each_ms: Ms = 12_000) -> Ms:
    """Return how long `depth` jobs of `each_ms` take at the queue's maximum concurrency."""
    parallel_jobs = queue.max_concurrency * queue.batch_size
    return queue.window * 1000 + max(0, depth) * each_ms // parallel_jobs


def _highest_cost(prices: Sequence[Priced | None], usage: Usage, attempts: int) -> Nano | None:
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
