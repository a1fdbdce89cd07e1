"""The loads that are simulated, each with its aims."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.waiting.world import Case, Tenant, World

MAX_OVER, MIN_USED, MAX_WAIT = 5.0, 90.0, 1.0  # percent, percent, seconds
MAX_USER_WAIT = 5.0  # seconds, of a user of a tenant that has a line: its job is held, too, and is in the index a moment later
WARM_UP = 90.0  # seconds in which the window fills
BUSY = Tenant(name="busy", jobs=5_000)
STRANGER = Tenant(name="stranger", every=10.0)
USERS = (Tenant(name="busy", jobs=5_000, user_of="acme"), Tenant(name="rare", every=10.0, user_of="acme"))
MANY_USERS = (USERS[0], *(Tenant(name=f"rare{number}", every=60.0, user_of="acme") for number in range(100)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case and what it must reach; None: it is only reported."""

    case: Case
    max_over: float = MAX_OVER  # percent above a limit in any sliding minute
    min_used: float | None = MIN_USED  # percent of the limit while work waits
    max_wait: float | None = None  # seconds that 95 of 100 jobs of a stranger wait
    max_expired: float | None = None  # percent of the grants
    since: float = 0.0  # when `max_over` begins to count


@dataclass(frozen=True)
class Outcome:
    """What a case gave."""

    over: float
    used: float
    half: float  # seconds that half of the strangers' jobs wait
    wait: float  # that 95 of 100 wait
    wake_ups: float  # a start
    units: float  # WRU a start
    expired: float  # percent of the grants
    refusals: int
    missed: list[str] = field(default_factory=list)


def others(count: int, every: float) -> tuple[Tenant, ...]:
    return tuple(Tenant(name=f"small{number}", every=every) for number in range(count))


def case(name: str, *, tenants: tuple[Tenant, ...] = (BUSY, STRANGER), **fields: object) -> Case:
    strangers = tuple(tenant.name for tenant in tenants if not tenant.jobs)
    return Case(**{"name": name, "requests": 500, "tenants": tenants, "strangers": strangers, **fields})  # type: ignore[arg-type]


def tokens_case(name: str, limit: int, jobs: int, own: tuple[int, int], stranger: tuple[int, int], **fields: object) -> Case:
    tenants = (Tenant(name="busy", jobs=jobs, tokens=own), Tenant(name="stranger", every=10.0, tokens=stranger))
    return case(name, requests=None, tokens=limit, tenants=tenants, **fields)


ROWS = (
    Row(case=case("500 RPM"), max_wait=MAX_WAIT),
    Row(case=case("500 RPM, 20 small tenants", tenants=(BUSY, *others(20, 10.0))), max_wait=MAX_WAIT),
    Row(case=case("500 RPM, 200 small tenants", tenants=(BUSY, *others(200, 60.0))), max_wait=MAX_WAIT),
    Row(case=case("500 RPM, clocks wrong by 0.5 s", clock_error=0.5), max_wait=MAX_WAIT),
    Row(case=case("500 RPM, 20 % cold starts", cold=0.2), max_wait=MAX_WAIT),
    Row(case=case("500 RPM, 10 % of the workers die", dying=0.1, lost=0.02), min_used=80.0, max_wait=MAX_WAIT),
    Row(case=case("500 RPM, the scheduler dies once", deaths=(300.0,)), max_wait=MAX_WAIT),
    Row(case=case("two users of one tenant, 500 RPM", tenants=USERS)),
    Row(case=case("the same, fair by user", tenants=USERS, by_user=True), max_wait=MAX_USER_WAIT),
    Row(case=case("101 users of one tenant, fair by user", tenants=MANY_USERS, by_user=True), max_wait=MAX_USER_WAIT),
    Row(case=case("60 RPM", requests=60, tenants=(Tenant(name="busy", jobs=600), STRANGER))),
    Row(case=case("5 a minute", requests=5, seconds=1_800.0, tenants=(Tenant(name="busy", jobs=160), Tenant(name="stranger", every=60.0)))),
    Row(case=case("10,000 RPM, 40,000 jobs", requests=10_000, tenants=(Tenant(name="busy", jobs=40_000), STRANGER)), max_wait=MAX_WAIT),
    Row(case=tokens_case("200,000 TPM, 600 to 8,000 each", 200_000, 600, (600, 8_000), (600, 8_000))),
    # Some 47 requests a minute, each wrong by 15 %, make the sum of a minute wrong by 2.4 %: nobody who estimates is exact.
    Row(
        case=tokens_case("200,000 TPM, estimates wrong by 15 %", 200_000, 600, (600, 8_000), (600, 8_000), estimate_error=0.15),
        max_over=6.0,
    ),
    Row(case=tokens_case("30,000 TPM, 6,000 to 12,000 each", 30_000, 150, (6_000, 12_000), (1_500, 1_500), seconds=2_400.0), min_used=79.0),
    Row(case=case("halved, headers say so", lowered_at=200.0), since=260.0),
    Row(case=case("halved, 429s say so", lowered_at=200.0, tells="message"), min_used=85.0, since=260.0),
    # Nothing says what the new limit is: it is found by being refused.
    Row(case=case("halved, bare 429s", lowered_at=200.0, tells="bare"), min_used=85.0, since=260.0),
    Row(case=case("30 % used by others", foreign=0.3), min_used=None, max_wait=MAX_WAIT),
    Row(
        case=case(
            "10,000 RPM, workers start a sixth",
            requests=10_000,
            cold=0.0,
            starts_per_second=10_000 / 360,
            seconds=300.0,
            tenants=(Tenant(name="busy", jobs=12_000), STRANGER),
        ),
        min_used=None,
        max_expired=1.0,
    ),
)


def run(row: Row) -> Outcome:
    """Simulate a case, and compare what it gave with its aims."""
    world = World(row.case).run()
    starts = len(world.started)
    waits = sorted(
        world.started.get(name, row.case.seconds) - at
        for name, at in world.submitted.items()
        if name.split("/")[0] in row.case.strangers and at < row.case.seconds - 30.0
    )
    waiting = len(world.submitted) - starts
    outcome = Outcome(
        over=_over(world, row.since),
        used=_used(world, max(WARM_UP, row.since)),
        half=waits[len(waits) // 2],
        wait=waits[int(0.95 * len(waits))],
        wake_ups=(world.cost["wake-ups"] - waiting) / starts,
        units=world.cost["WRU"] / starts,
        expired=100 * world.cost["expired grants"] / max(1, world.cost["grants"]),
        refusals=world.provider.refused,
    )
    outcome.missed.extend(_missed(row, outcome))
    return outcome


def _missed(row: Row, outcome: Outcome) -> list[str]:
    pairs = (
        ("over", outcome.over <= row.max_over),
        ("used", row.min_used is None or outcome.used >= row.min_used),
        ("wait", row.max_wait is None or outcome.wait <= row.max_wait),
        ("expired", row.max_expired is None or outcome.expired <= row.max_expired),
    )
    return [name for name, met in pairs if not met]


def _limits(world: World) -> tuple[float | None, float | None]:
    return world.provider.requests, world.provider.tokens


def _over(world: World, since: float) -> float:
    most = world.provider.most_in_a_minute(since, world.case.seconds)
    return max(100 * (number / limit - 1) for number, limit in zip(most, _limits(world), strict=True) if limit)


def _used(world: World, since: float) -> float:
    """Return how much of the limit was used while the busy tenant had jobs waiting.

    The last ones, whose releases were lost, do not count: they wait for themselves.
    """
    busy = [tenant.name for tenant in world.case.tenants if tenant.jobs]
    ends = sorted(world.started.get(name, world.case.seconds) for name in world.submitted if name.split("/")[0] in busy)
    until = ends[int(0.98 * len(ends))]
    got = world.provider.received(since, until)
    return max(100 * number / (limit * (until - since) / 60) for number, limit in zip(got, _limits(world), strict=True) if limit)
