"""What a type may add to a submission and a result: an answer at once, one job for one story, an answer without a key."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.work import sweep, work

STORY = {
    "title": "A miracle battery!",
    "content": "It charges instantly. Nobody measured it.",
    "sector": "energy",
    "impact_tags": ["climate"],
}


def submit(api: Api, token: str = "user", key: str | None = None, story: dict[str, Any] | None = None, **fields: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    reply = api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": story or STORY, **fields}, token, **headers)
    assert reply.status == 202, reply.text
    return reply.json


def test_a_story_is_scored_at_once(api: Api) -> None:
    """The 202 has the plain local scores, marked as such; a repeated request gets them again, and other types have none."""
    first = submit(api, key="k1")
    again = submit(api, key="k1")

    assert first["preliminary"]["source"] == "local_fallback"
    assert 0 <= first["preliminary"]["hype_score"] <= 10
    assert (again["job_id"], again["preliminary"]) == (first["job_id"], first["preliminary"])
    assert "preliminary" not in api.call("POST", "/jobs", {"prompt": "x"}).json


def test_a_story_is_worked_on_once(api: Api) -> None:
    """However it is spaced and capitalised, for the same user, until its job has ended; a key of the caller's own counts for more."""
    first = submit(api)
    spaced = submit(api, story={**STORY, "title": "  a MIRACLE\tbattery! ", "sector": "other"})
    own = submit(api, dedupe_key="mine")
    colleagues = submit(api, token="colleague")
    other = submit(api, story={**STORY, "content": "Something else."})

    assert (spaced["job_id"], spaced["deduplicated"]) == (first["job_id"], True)
    assert spaced["preliminary"] == first["preliminary"]
    assert len({first["job_id"], own["job_id"], colleagues["job_id"], other["job_id"]}) == 4
    assert api.call("GET", f"/jobs/{first['job_id']}").json["dedupe_key"].startswith("story:")


def test_without_a_key_its_result_says_so(api: Api) -> None:
    """`fallback` is true, the model is `local`, and it costs nothing."""
    api.container.provider.keyed = False
    job_id = submit(api)["job_id"]

    work(api)

    result = api.call("GET", f"/jobs/{job_id}/result").json
    assert (result["status"], result["fallback"], result["model"]) == ("completed", True, "local")
    assert float(result["cost"]) == 0
    assert (result["usage"]["input_tokens"], result["usage"]["output_tokens"]) == (0, 0)
    assert result["parsed"]["source"] == "local_fallback"
    assert json.loads(result["output"]) == result["parsed"]


def test_without_a_key_other_jobs_wait(api: Api) -> None:
    """`held`, with the reason and when it looks again; stored in time, the key is all that was missing."""
    api.container.provider.keyed = False
    job_id = api.submit()

    work(api)
    held = api.call("GET", f"/jobs/{job_id}").json
    api.container.provider.keyed = True
    sweep(api, 400)
    work(api)

    assert (held["status"], held["reason"], held["attempt"], held["error"]) == ("held", "openai_not_configured", 0, None)
    assert held["next_attempt_at"] > held["updated_at"]
    done = api.call("GET", f"/jobs/{job_id}/result").json
    assert (done["status"], done["fallback"], done["attempt"]) == ("completed", False, 1)


def test_an_answer_that_does_not_fit_is_kept_raw() -> None:
    """The result of the failed job has what the model said, to the letter, and nothing parsed."""
    said = '{"claims": "none", "hype_score": 11}'
    api = Api(Script(deltas=[said[:9], said[9:]]))
    job_id = submit(api, config={"max_attempts": 1})["job_id"]

    work(api)

    result = api.call("GET", f"/jobs/{job_id}/result").json
    assert (result["status"], result["output"], result["parsed"], result["fallback"]) == ("failed", said, None, False)
    assert (result["error"]["code"], result["error"]["class"], result["error"]["retryable"]) == ("output_invalid", "output", True)


def test_a_type_with_an_input_takes_no_prompt(api: Api) -> None:
    """Each wrong field is named, and where to look."""
    prompt = api.call("POST", "/jobs", {"job_type": "story_enhancement", "prompt": "x"})
    wrong = api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": {"title": "", "body": "x"}})
    turns = api.call("POST", "/jobs", {"job_type": "transcript_analysis", "input": {"turns": []}, "options": {"analyses": ["mood"]}})

    assert prompt.status == wrong.status == turns.status == 400
    assert [detail["path"] for detail in prompt.json["error"]["details"]] == ["input"]
    assert {detail["path"] for detail in wrong.json["error"]["details"]} == {"input.title", "input.body", "input.content"}
    assert {detail["path"] for detail in turns.json["error"]["details"]} == {"input.turns", "options.analyses.0"}


def test_the_types_say_what_they_take_and_answer(api: Api) -> None:
    """All of the AI types, each with its schemas; the largest answer of one whose options choose."""
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
