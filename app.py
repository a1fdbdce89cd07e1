"""Headrace: every way in, on one screen."""

from typing import Any

from chalice import Chalice, Rate

from chalicelib.domain.lanes import DELIVERERS, DELIVERIES, HIGH, LOW, NORMAL, TASKS, URGENT, Lane, queue_name
from chalicelib.routes import (
    about,
    batches,
    bulk,
    failed,
    jobs,
    jobs_read,
    middleware,
    openapi,
    operations,
    streams,
    uploads,
    webhooks,
    websocket,
)
from chalicelib.routes.preflight import allow_preflights
from chalicelib.routes.triggers import announce_changes, count_all, deliver_all, run_lane, run_tasks, sweep_all
from chalicelib.settings import settings

app = Chalice(app_name="headrace", configure_logs=False)  # one line a fact: `observability` writes them
app.experimental_feature_flags.update(["WEBSOCKETS"])
app.register_middleware(middleware.in_our_shape, "http")
for module in (about, jobs, jobs_read, batches, bulk, failed, streams, operations, openapi, uploads, webhooks):
    app.register_blueprint(module.blueprint)
allow_preflights(app)


def lane_trigger(lane: Lane) -> Any:
    """An SQS trigger as wide as its lane."""
    return app.on_sqs_message(
        queue=queue_name(settings().stage, lane.name),
        batch_size=lane.batch_size,
        maximum_batching_window_in_seconds=lane.window,
        maximum_concurrency=lane.max_concurrency,
        name=f"worker_{lane.name}",
    )


@lane_trigger(URGENT)
def worker_urgent(event: Any) -> None:
    run_lane(URGENT, event)


@lane_trigger(HIGH)
def worker_high(event: Any) -> None:
    run_lane(HIGH, event)


@lane_trigger(NORMAL)
def worker_normal(event: Any) -> None:
    run_lane(NORMAL, event)


@lane_trigger(LOW)
def worker_low(event: Any) -> None:
    run_lane(LOW, event)


@app.on_sqs_message(queue=queue_name(settings().stage, DELIVERIES), batch_size=10, maximum_concurrency=DELIVERERS, name="deliver")
def deliver(event: Any) -> None:
    deliver_all(event)


@app.on_dynamodb_record(stream_arn=settings().jobs_stream_arn, starting_position="TRIM_HORIZON", name="release")
def release(event: Any) -> None:
    announce_changes(event)


@app.on_dynamodb_record(
    stream_arn=settings().jobs_stream_arn,
    starting_position="TRIM_HORIZON",
    batch_size=500,
    maximum_batching_window_in_seconds=2,
    name="count",
)
def count(event: Any) -> None:
    count_all(event)


@app.on_sqs_message(queue=queue_name(settings().stage, TASKS), batch_size=1, maximum_concurrency=5, name="tasks")
def tasks(event: Any) -> None:
    run_tasks(event)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep")
def sweep(_event: Any) -> None:
    sweep_all()


@app.on_ws_connect()
def websocket_connect(event: Any) -> dict[str, int]:
    return websocket.connect(event.to_dict())


@app.on_ws_message()
def websocket_message(event: Any) -> dict[str, int]:
    return websocket.message(event.to_dict())


@app.on_ws_disconnect()
def websocket_disconnect(event: Any) -> dict[str, int]:
    return websocket.disconnect(event.to_dict())
