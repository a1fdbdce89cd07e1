"""Jobs that depend on each other, on the laptop cloud."""

from __future__ import annotations

from tests.e2e.stack import Api, Model


def diamond(api: Api, model: Model, policy: str) -> dict[str, str]:
    """Submit a diamond of four jobs, of which the left one fails. Return their ids."""
    broken = Model(model.http, model.openai_url)
    broken.fail(400)
    top = api.submit(prompt="TOP", config=model.echo)
    left = api.submit(prompt="Left of {{parents.top.output}}", config=broken.config, depends_on={"top": top})
    right = api.submit(prompt="RIGHT", config=model.echo, depends_on=[top])
    bottom = api.submit(
        prompt="{{parents.right.output}} / {{parents.left.status}}",
        config=model.echo,
        depends_on={"left": left, "right": right},
        on_parent_failure=policy,
    )
    return {"top": top, "left": left, "right": right, "bottom": bottom}


def test_failed_parent_in_a_diamond_cancels_the_child(api: Api, model: Model) -> None:
    jobs = diamond(api, model, "cancel")

    result = api.wait_for_end(jobs["bottom"])

    assert (result["status"], result["error"]["code"]) == ("cancelled", "dependency_failed"), result
    assert api.wait_for_end(jobs["right"])["status"] == "completed"
    graph = api.get(f"/jobs/{jobs['top']}/graph")
    assert {node["job_id"]: node["status"] for node in graph["nodes"]} == {
        jobs["top"]: "completed",
        jobs["left"]: "failed",
        jobs["right"]: "completed",
        jobs["bottom"]: "cancelled",
    }


def test_run_anyway_child_in_a_diamond_runs_after_a_failed_parent(api: Api, model: Model) -> None:
    jobs = diamond(api, model, "run_anyway")

    result = api.wait_for_end(jobs["bottom"])

    assert result["status"] == "completed", result
    assert "RIGHT" in result["output"]
    assert "failed" in result["output"]


def test_child_of_an_ended_parent_is_released(api: Api, model: Model) -> None:
    parent = api.submit(prompt="first", config=model.echo)
    api.wait_for_end(parent)

    child = api.submit(prompt="{{parents.p.output}}", config=model.echo, depends_on={"p": parent})

    assert "Say: first" in api.wait_for_end(child)["output"]


def test_unknown_parent_is_refused(api: Api) -> None:
    answer = api.call("POST", "/jobs", {"prompt": "x", "depends_on": [f"job_{7:026}"]})

    assert answer.status_code == 400, answer.text
    assert "depends_on" in answer.text


def test_waiting_child_names_its_parents(api: Api, model: Model) -> None:
    parent = api.submit(prompt="slow", config=model.echo, delay=3_600)
    child = api.submit(prompt="x", config=model.echo, depends_on=[parent])

    record = api.get(f"/jobs/{child}")

    assert (record["status"], record["reason"], record["depends_on"]) == ("waiting", "dependencies", [parent])
    api.run_now(parent)
    assert api.wait_for_end(child)["status"] == "completed"
