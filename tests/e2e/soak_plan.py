"""The plan of a soak, drawn from its seed: jobs, OpenAI's behaviour, faults, subscribers."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.e2e.stack import words

SEED = os.environ.get("HEADRACE_SOAK_SEED", "2026")
JOBS = int(os.environ.get("HEADRACE_SOAK_JOBS", "200"))
SECONDS = float(os.environ.get("HEADRACE_SOAK_SECONDS", "60"))  # of submissions and faults; the last recoveries follow

LANES = {"normal": 9, "high": 5, "low": 3, "urgent": 3}
SCRIPTED = 6  # answers of one job with distinct texts; one further text is repeated
MIN_WORDS, MAX_WORDS = 120, 320  # at 20 ms each: two to six seconds on an idle machine
STALL_SECONDS = 600.0  # longer than the soak
STALLED_JOB_TIMEOUT = 20.0  # `config.timeout` of a job whose answer stalls; shorter than the provider idle timeout of a minute

Behaviour = dict[str, Any]


def _break(kind: str) -> Any:
    def behaviour(random: Random) -> list[Behaviour]:
        return [{"type": "stream_fault", "kind": kind, "after_chunks": random.randint(20, 100), "stall_seconds": STALL_SECONDS}]

    return behaviour


def _refuse(status: int, **more: Any) -> Any:
    return lambda _random: [{"type": "fail", "status": status, **more}]


def _rate_limit(random: Random) -> list[Behaviour]:
    return [{"type": "fail", "status": 429, "retry_after": random.choice((1, 2, 3))}]


def _rate_limit_then_cut(random: Random) -> list[Behaviour]:
    return _rate_limit(random) + _break("disconnect")(random)


# OpenAI's behaviour, with the number of jobs out of 100. A job has at most one failure without
# `Retry-After`: with full jitter a second delay may be shorter, which llmock reports as no backoff.
TROUBLES: dict[str, tuple[int, Any]] = {
    "none": (56, lambda _random: []),
    "disconnect": (7, _break("disconnect")),
    "truncate": (7, _break("truncate")),
    "malformed": (6, _break("malformed")),
    "stall": (4, _break("stall")),
    "429": (7, _rate_limit),
    "500": (4, _refuse(500)),
    "503": (4, _refuse(503)),
    "429, then disconnect": (3, _rate_limit_then_cut),
    "refused": (2, _refuse(400)),
}


@dataclass(frozen=True)
class Planned:
    """One job. `texts` are OpenAI's answers, in this order; the last one is repeated."""

    number: int
    at: float
    lane: str
    trouble: str
    behaviours: list[Behaviour]
    texts: list[str]
    delay: int = 0
    cancel_after: float | None = None
    retried: bool = False  # manually, after its cancel
    sockets: int = 0
    event_sources: int = 0
    repeated: bool = False  # the submission is sent twice, under one Idempotency-Key

    @property
    def fields(self) -> dict[str, Any]:
        config: dict[str, Any] = {"priority": self.lane}
        if self.trouble == "stall":
            config["timeout"] = STALLED_JOB_TIMEOUT
        return {"prompt": f"Soak job {self.number}.", "config": config, **({"delay": self.delay} if self.delay else {})}

    def script(self, model: str) -> list[Behaviour]:
        """Return the behaviours for llmock."""
        match = {"match": {"model": model}}
        replies = [{"type": "reply", "text": text, "times": 1, **match} for text in self.texts[:-1]]
        last = {"type": "reply", "text": self.texts[-1], "times": None, **match}
        return [{"times": 1, **behaviour, **match} for behaviour in self.behaviours] + [*replies, last]


@dataclass(frozen=True)
class Plan:
    """A soak. Times are in seconds after its start."""

    jobs: list[Planned]
    kills: list[float]
    zombies: list[float]
    timeouts: list[float]
    troubles: Counter[str] = field(default_factory=Counter)


def planned(seed: str = SEED, count: int = JOBS, seconds: float = SECONDS) -> Plan:
    """Draw a plan. The same arguments give the same plan."""
    random = Random(f"soak/{seed}")
    jobs = [_job(random, number, seconds * number / count) for number in range(count)]
    kills = max(3, round(seconds / 6))
    return Plan(
        jobs=jobs,
        kills=[3 + (number + random.random()) * seconds / kills for number in range(kills)],  # spread over the sweeper's runs
        zombies=sorted(random.uniform(5, seconds * 0.7) for _ in range(3)),
        timeouts=sorted(random.uniform(4, seconds * 0.4) for _ in range(2)),
        troubles=Counter(job.trouble for job in jobs if job.behaviours),
    )


def _job(random: Random, number: int, at: float) -> Planned:
    trouble = random.choices(list(TROUBLES), [weight for weight, _ in TROUBLES.values()])[0]
    cancelled = trouble == "none" and random.random() < 0.12
    length = MIN_WORDS if trouble == "stall" else random.randint(MIN_WORDS, MAX_WORDS)  # the second answer has to end before the timeout
    return Planned(
        number=number,
        at=at,
        lane=random.choices(list(LANES), list(LANES.values()))[0],
        trouble=trouble,
        behaviours=TROUBLES[trouble][1](random),
        texts=[words(length, f"j{number}r{answer}w") for answer in range(1, SCRIPTED + 2)],
        delay=random.randint(3, 15) if random.random() < 0.08 else 0,
        cancel_after=random.uniform(0.5, 6.0) if cancelled else None,
        retried=cancelled and random.random() < 0.5,
        sockets=random.choices((0, 1, 2), (65, 28, 7))[0],
        event_sources=random.choices((0, 1), (91, 9))[0],
        repeated=random.random() < 0.1,
    )
