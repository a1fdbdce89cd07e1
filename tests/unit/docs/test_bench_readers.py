"""The readers of the change stream: requests by job, and writers of the same counters that meet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from bench import contention, readers
from bench.rig import CALLER, STAGE, open_cloud
from chalicelib import bootstrap
from chalicelib.adapters.aws import client as aws
from chalicelib.domain.auth.identity import Key
from chalicelib.settings import Settings
from infra.chalice_config import FUNCTIONS

JOBS = readers.BATCH_SIZE["on_job_change"]  # a whole invocation; the benchmark takes two
BATCHES = 3 * JOBS / readers.BATCH_SIZE["on_job_change"]


@pytest.fixture(scope="module")
def usages() -> Iterator[dict[str, readers.Usages]]:
    """What a job costs its reader in each scenario, counted on the real adapters."""
    with mock.patch.dict(os.environ), mock.patch.dict(readers.JOBS, on_job_change=JOBS), open_cloud() as port:
        aws.reset_clients()
        container = bootstrap.Container(Settings(stage=STAGE, log_level="ERROR"))
        container.api_keys.put_key(
            Key(id=CALLER.key_id, hash=CALLER.key_hash, tenant=CALLER.tenant, user=CALLER.user, role=CALLER.role, created_at=0)
        )
        endpoint = f"http://127.0.0.1:{port}"
        yield {name: readers.measure_scenario(container, scenario, endpoint, rounds=1) for name, scenario in readers.SCENARIOS.items()}
    aws.reset_clients()


def test_a_job_that_nobody_watches_costs_its_reader_one_query(usages: dict[str, readers.Usages]) -> None:
    """For its dependents. Who watches is read once for all jobs of a batch."""
    requests = usages["on_job_change"].requests

    assert requests["Query"] == 1
    assert requests["BatchGetItem"] <= BATCHES / JOBS + 0.001
    assert set(requests) == {"Query", "BatchGetItem"}


def test_a_watcher_costs_the_reader_one_query_and_one_post(usages: dict[str, readers.Usages]) -> None:
    without, watched = usages["on_job_change, a webhook a job"].requests, usages["on_job_change, a webhook and a watcher"].requests

    assert watched["Query"] - without["Query"] == 1
    assert watched["PostToConnection"] == 1
    assert watched["GetItem"] - without.get("GetItem", 0) <= 1 / JOBS + 0.001  # the key, once in an environment


def test_a_webhook_costs_the_reader_at_most_six_requests(usages: dict[str, readers.Usages]) -> None:
    plain, webhook = usages["on_job_change"], usages["on_job_change, a webhook a job"]

    assert webhook.requests["SendMessage"] == 1
    assert webhook.calls - plain.calls <= 6


def test_counting_costs_less_than_a_tenth_of_a_request_for_each_job(usages: dict[str, readers.Usages]) -> None:
    assert usages["count_jobs"].calls < 0.1
    assert usages["count_jobs, rows of a batch"].calls < 0.3  # each row is counted at each change


@pytest.mark.parametrize(
    ("name", "cpu_ms"), [("on_job_change, a webhook a job", 6.0), ("count_jobs", 0.5), ("count_jobs, rows of a batch", 1.2)]
)
def test_the_readers_carry_a_thousand_jobs_a_second_at_half_as_many_requests_again(
    usages: dict[str, readers.Usages], name: str, cpu_ms: float
) -> None:
    """With the processor times that are documented: those of this machine differ from run to run."""
    scenario, memory = readers.SCENARIOS[name], {function.name: function.memory for function in FUNCTIONS}
    usage = readers.Usages(cpu_ms, {operation: 1.5 * number for operation, number in usages[name].requests.items()})

    assert readers.SHARDS * readers.jobs_per_second(scenario, usage, memory[scenario.function]) >= 1_000


def test_reserved_concurrency_covers_the_readers_of_twice_the_shards_of_a_new_table() -> None:
    reserved = {function.name: function.reserved or 0 for function in FUNCTIONS}

    assert all(reserved[name] >= 2 * readers.SHARDS * factor for name, factor in readers.FACTOR.items())


@pytest.mark.parametrize("name", contention.LOADS)
def test_writers_of_the_same_counters_keep_up_with_a_thousand_jobs_a_second(name: str) -> None:
    """They do meet, and nothing is counted twice or lost: `simulate` compares the sums."""
    outcome = contention.simulate(contention.LOADS[name], seconds=5)

    assert outcome.conflicts > 10
    assert outcome.lost == 0
    assert outcome.counted == outcome.expected
    assert outcome.behind <= contention.AIM["seconds behind, at most"]


def test_a_simulation_of_writers_is_the_same_in_every_run() -> None:
    load = contention.LOADS["rows of one batch"]

    first = contention.simulate(load, seconds=1)

    assert contention.simulate(load, seconds=1) == first
    assert contention.simulate(load, seconds=1, seed="another") != first
