"""Simulate jobs that wait for the rate limit of a model: `python -m bench waiting`.

The product's own code decides: the sliding window, the fair queue, what is learnt from the
provider. Around it, in virtual time: 450 workers, a scheduler, a store, a queue, wrong clocks, cold
starts, workers that die with what was taken for their job, releases that are lost (`world.py`). No
emulator shows these, and a minute of a rate limit is a minute.

One tenant has more jobs than the limit allows; a stranger submits one now and then. Or both are users of one
tenant, which shares by user or does not. `over` is the
most that reached the provider in any sliding minute, above the limit; `used` the part of the limit
that was used while jobs waited; `p50` and `p95` how long the jobs of strangers waited. A second
simulation has a thousand tenants who wait for fifty models (`shards.py`).
"""

from __future__ import annotations

from dataclasses import asdict

from bench.findings import Finding, finding, table, verdicts
from bench.waiting import shards
from bench.waiting.cases import MAX_OVER, ROWS, run

AIM = {
    "cases that missed one of their aims": 0.0,
    "% above a limit in a sliding minute, at most": MAX_OVER,
    "s, p95 of a stranger at 500 RPM": 1.0,
    **shards.AIM,
}


def measure() -> Finding:
    """Run every case, and the shards."""
    outcomes = {row.case.name: run(row) for row in ROWS}
    many = shards.run()
    value = {
        "cases that missed one of their aims": sum(bool(one.missed) for one in outcomes.values()),
        "% above a limit in a sliding minute, at most": max(outcomes[row.case.name].over for row in ROWS if row.max_over == MAX_OVER),
        "s, p95 of a stranger at 500 RPM": max(one.wait for name, one in outcomes.items() if name.startswith("500 RPM")),
        **{name: many[name] for name in shards.AIM},
    }
    return finding(
        "waiting",
        "what waits for a rate limit, simulated in virtual time",
        AIM,
        value,
        cases={name: asdict(one) for name, one in outcomes.items()},
        shards=many,
    )


def show(found: Finding) -> str:
    """Format the finding as two tables."""
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{one['over']:+.1f}",
            f"{one['used']:.1f}",
            f"{one['half']:.2f}",
            f"{one['wait']:.2f}",
            f"{one['wake_ups']:.1f}",
            f"{one['units']:.1f}",
            f"{one['expired']:.1f}",
            f"{one['refusals']}",
            ", ".join(one["missed"]) or "-",
        )
        for name, one in found["cases"].items()
    ]
    header = ("", "over %", "used %", "p50 s", "p95 s", "wake-ups", "WRU", "expired %", "429s", "missed")
    many: list[tuple[str, ...]] = [(name, f"{value:,.2f}") for name, value in found["shards"].items()]
    return "\n".join([table(rows, header), "", table(many, (shards.TITLE, "")), verdicts(found)])
