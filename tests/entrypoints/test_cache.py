"""`config.cache`: equal requests of a tenant share a response if each sets the option."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.http import Api
from tests.kit.work import work


def result_of(api: Api, token: str = "user", cache: Any = True, **config: Any) -> dict[str, Any]:
    """Submit a job, run it and return its result."""
    job_id = api.submit(token, config={"cache": cache, **config})
    work(api)
    reply = api.call("GET", f"/jobs/{job_id}/result", token=token)
    assert reply.status == 200, reply.text
    return dict(reply.json)


@pytest.mark.parametrize(
    ("given", "shown"), [(True, {"ttl": 86400.0}), ({"ttl": 60}, {"ttl": 60.0}), (False, False), (None, False)], ids=str
)
def test_the_cache_option_is_shown_with_its_default_ttl(api: Api, given: Any, shown: Any) -> None:
    reply = api.call("POST", "/jobs", {"prompt": "Say hello.", "config": {"cache": given}})

    assert reply.json["config"]["cache"] == shown
    assert api.call("GET", reply.json["links"]["self"]).json["config"]["cache"] == shown


@pytest.mark.parametrize("given", [1, "yes", {}, {"ttl": 0}, {"ttl": 2_592_001}, {"ttl": 60, "for": "ever"}], ids=str)
def test_an_invalid_cache_option_is_refused(api: Api, given: Any) -> None:
    reply = api.call("POST", "/jobs", {"prompt": "Say hello.", "config": {"cache": given}})

    assert reply.status == 400
    assert reply.json["error"]["details"][0]["path"].startswith("config.cache")


def test_a_cache_hit_names_its_source_job_and_costs_nothing(api: Api) -> None:
    """Users of one tenant share the cache."""
    first = result_of(api)

    second = result_of(api, "colleague")

    assert (first["cache"], second["output"]) == ({"hit": False}, first["output"])
    assert second["cache"]["hit"] is True
    assert second["cache"]["job_id"] == first["job_id"]
    assert second["cache"]["cached_at"].endswith("Z")
    assert (second["usage"]["total_tokens"], second["cost"], second["model"]) == (0, "0.000000", first["model"])
    assert second["timings"]["tokens_per_second"] is None


def test_a_cache_hit_is_recorded_as_an_attempt_without_cost(api: Api) -> None:
    result_of(api)
    hit = result_of(api)

    attempts = api.call("GET", f"/jobs/{hit['job_id']}/attempts").json

    [row] = attempts["data"]
    assert (row["cost"], row["model"], row["cache"]["hit"], row["wasted"]) == ("0.000000", hit["model"], True, False)
    assert attempts["total_cost"] == "0.000000"


def test_tenants_do_not_share_a_cache(api: Api) -> None:
    result_of(api)

    assert result_of(api, "stranger")["cache"] == {"hit": False}


def test_a_result_without_the_cache_option_has_no_cache_information(api: Api) -> None:
    result_of(api)

    assert result_of(api, cache=False)["cache"] is None


def test_the_response_of_a_deleted_job_is_not_served_from_the_cache(api: Api) -> None:
    first = result_of(api)
    api.call("POST", "/bulk", {"action": "delete", "ids": [first["job_id"]]}, "operator")

    assert result_of(api)["cache"] == {"hit": False}
