"""What a job type can add to a job: preliminary results, a dedupe key, and a result without a provider key."""

from __future__ import annotations

import json
from typing import Any

from chalicelib.domain.queues.causes import MISSING_KEY
from chalicelib.domain.queues.lanes import READY, SCHEDULE
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.time import JumpingLoop
from tests.kit.work import run_scheduler, sweep, work

STORY = {
    "title": "A miracle battery!",
    "content": "It charges instantly. It was never measured.",
    "sector": "energy",
    "impact_tags": ["climate"],
}


def submit(api: Api, token: str = "user", key: str | None = None, story: dict[str, Any] | None = None, **fields: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    reply = api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": story or STORY, **fields}, token, **headers)
    assert reply.status == 202, reply.text
    return reply.json


def test_a_story_submission_returns_preliminary_scores(api: Api) -> None:
    """A replay returns the same scores; other job types have no preliminary scores."""
    first = submit(api, key="k1")
    again = submit(api, key="k1")

    assert first["preliminary"]["source"] == "local_fallback"
    assert 0 <= first["preliminary"]["hype_score"] <= 10
    assert (again["job_id"], again["preliminary"]) == (first["job_id"], first["preliminary"])
    assert "preliminary" not in api.call("POST", "/jobs", {"prompt": "x"}).json


def test_equal_stories_of_a_user_share_one_job(api: Api) -> None:
    """Spacing and capitalisation do not matter; an explicit dedupe key takes precedence."""
    first = submit(api)
    spaced = submit(api, story={**STORY, "title": "  a MIRACLE\tbattery! ", "sector": "other"})
    own = submit(api, dedupe_key="mine")
    colleagues = submit(api, token="colleague")
    other = submit(api, story={**STORY, "content": "Something else."})

    assert (spaced["job_id"], spaced["deduplicated"]) == (first["job_id"], True)
    assert spaced["preliminary"] == first["preliminary"]
    assert len({first["job_id"], own["job_id"], colleagues["job_id"], other["job_id"]}) == 4
    assert api.call("GET", f"/jobs/{first['job_id']}").json["dedupe_key"].startswith("story:")


def test_a_story_without_a_provider_key_has_a_fallback_result(api: Api) -> None:
    """`fallback` is true, the model is `local`, and the job costs nothing."""
    api.container.provider.has_key = False
    job_id = submit(api)["job_id"]

    work(api)

    result = api.call("GET", f"/jobs/{job_id}/result").json
    assert (result["status"], result["fallback"], result["model"]) == ("completed", True, "local")
    assert float(result["cost"]) == 0
    assert (result["usage"]["input_tokens"], result["usage"]["output_tokens"]) == (0, 0)
    assert result["parsed"]["source"] == "local_fallback"
    assert json.loads(result["output"]) == result["parsed"]


def test_other_jobs_are_held_until_a_provider_key_is_stored() -> None:
    """A held job shows its reason and its line, and has used no attempt. The scheduler looks for the key."""
    api = Api(loop=JumpingLoop())
    api.container.provider.has_key = False
    job_id = api.submit()

    work(api)
    held = api.call("GET", f"/jobs/{job_id}").json
    api.container.provider.has_key = True
    api.container.queues.messages[SCHEDULE].clear()
    sweep(api, 400)
    run_scheduler(api)
    work(api, READY.name)

    assert (held["status"], held["reason"], held["attempt"], held["error"]) == ("held", "openai_not_configured", 0, None)
    assert (held["cause"], held["next_attempt_at"]) == (MISSING_KEY, None)
    done = api.call("GET", f"/jobs/{job_id}/result").json
    assert (done["status"], done["fallback"], done["attempt"]) == ("completed", False, 1)


def test_invalid_model_output_is_kept_unparsed_in_the_result() -> None:
    """The failed job keeps the exact text of the model."""
    output = '{"claims": "none", "hype_score": 11}'
    api = Api(Script(deltas=[output[:9], output[9:]]))
    job_id = submit(api, config={"max_attempts": 1})["job_id"]

    work(api)

    result = api.call("GET", f"/jobs/{job_id}/result").json
    assert (result["status"], result["output"], result["parsed"], result["fallback"]) == ("failed", output, None, False)
    assert (result["error"]["code"], result["error"]["class"], result["error"]["retryable"]) == ("output_invalid", "output", True)


def test_a_job_type_with_an_input_schema_refuses_a_prompt(api: Api) -> None:
    """Every invalid field is reported by its path."""
    prompt = api.call("POST", "/jobs", {"job_type": "story_enhancement", "prompt": "x"})
    wrong = api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": {"title": "", "body": "x"}})
    turns = api.call("POST", "/jobs", {"job_type": "transcript_analysis", "input": {"turns": []}, "options": {"analyses": ["mood"]}})

    assert prompt.status == wrong.status == turns.status == 400
    assert [detail["path"] for detail in prompt.json["error"]["details"]] == ["input"]
    assert {detail["path"] for detail in wrong.json["error"]["details"]} == {"input.title", "input.body", "input.content"}
    assert {detail["path"] for detail in turns.json["error"]["details"]} == {"input.turns", "options.analyses.0"}


def test_job_types_are_listed_with_their_schemas(api: Api) -> None:
    """A type whose options select the output shows the schema of its largest output."""
    types = {row["job_type"]: row for row in api.call("GET", "/job-types").json["data"]}

    assert {
        "general",
        "security_analysis",
        "code_review",
        "sentiment_analysis",
        "content_generation",
        "story_enhancement",
        "transcript_analysis",
        "learning_insights",
        "reflection_processing",
    } <= set(types)
    assert types["story_enhancement"]["preliminary"] is types["story_enhancement"]["works_without_key"] is True
    assert types["general"]["works_without_key"] is False
    assert set(types["transcript_analysis"]["response_schema"]["required"]) >= {"sentiment", "quality"}
