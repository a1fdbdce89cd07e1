"""Headrace: every entry point of the Lambda functions, on one screen."""

from typing import Any

from chalice import Chalice, Rate

from chalicelib.domain.queues.lanes import (
    DELIVERIES,
    DELIVERY_CONCURRENCY,
    HIGH,
    LOW,
    NORMAL,
    READY,
    SCHEDULE,
    TASKS,
    URGENT,
    WORK,
    JobQueue,
    queue_name,
)
from chalicelib.entrypoints import websocket
from chalicelib.entrypoints.batch_response import BatchResponse
from chalicelib.entrypoints.http import middleware
from chalicelib.entrypoints.http.cors import add_cors_preflight
from chalicelib.entrypoints.http.openapi import document as openapi_document
from chalicelib.entrypoints.http.routes import (
    about,
    batches,
    bulk,
    failed_jobs,
    job_reads,
    jobs,
    limits,
    operations,
    pauses,
    streams,
    uploads,
    webhooks,
)
from chalicelib.entrypoints.triggers import (
    handle_batch_schedule,
    handle_bulk_schedule,
    handle_count_changes,
    handle_delivery_messages,
    handle_delivery_schedule,
    handle_job_changes,
    handle_job_end_schedule,
    handle_lane_messages,
    handle_line_schedule,
    handle_schedule_messages,
    handle_sweep,
    handle_task_messages,
)
from chalicelib.settings import settings

app = Chalice(app_name="headrace", configure_logs=False)  # `observability` writes the log
app.experimental_feature_flags.update(["WEBSOCKETS"])
app.register_middleware(middleware.wrap_chalice_errors, "http")
for module in (
    about,
    jobs,
    job_reads,
    batches,
    bulk,
    failed_jobs,
    streams,
    limits,
    operations,
    pauses,
    openapi_document,
    uploads,
    webhooks,
):
    app.register_blueprint(module.blueprint)
add_cors_preflight(app)


def worker_trigger(queue: JobQueue) -> Any:
    """An SQS trigger with the batch size and concurrency of its queue."""
    return app.on_sqs_message(
        queue=queue_name(settings().stage, queue.name),
        batch_size=queue.batch_size,
        maximum_batching_window_in_seconds=queue.window,
        maximum_concurrency=queue.max_concurrency,
        name=queue.function,
    )


@worker_trigger(URGENT)
def worker_urgent(event: Any) -> BatchResponse:
    return handle_lane_messages(URGENT, event)


@worker_trigger(HIGH)
def worker_high(event: Any) -> BatchResponse:
    return handle_lane_messages(HIGH, event)


@worker_trigger(NORMAL)
def worker_normal(event: Any) -> BatchResponse:
    return handle_lane_messages(NORMAL, event)


@worker_trigger(LOW)
def worker_low(event: Any) -> BatchResponse:
    return handle_lane_messages(LOW, event)


@worker_trigger(WORK)
def worker_work(event: Any) -> BatchResponse:
    return handle_lane_messages(WORK, event)


@worker_trigger(READY)
def worker_ready(event: Any) -> BatchResponse:
    return handle_lane_messages(READY, event)


@app.on_sqs_message(
    queue=queue_name(settings().stage, SCHEDULE),
    batch_size=1,
    maximum_concurrency=settings().scheduler_shards + 2,
    name="run_scheduler",
)
def run_scheduler(event: Any) -> BatchResponse:
    return handle_schedule_messages(event)


@app.on_sqs_message(queue=queue_name(settings().stage, DELIVERIES), batch_size=10, maximum_concurrency=DELIVERY_CONCURRENCY, name="deliver")
def deliver(event: Any) -> BatchResponse:
    return handle_delivery_messages(event)


@app.on_dynamodb_record(stream_arn=settings().jobs_stream_arn, starting_position="TRIM_HORIZON", name="on_job_change")
def on_job_change(event: Any) -> None:
    handle_job_changes(event)


@app.on_dynamodb_record(
    stream_arn=settings().jobs_stream_arn,
    starting_position="TRIM_HORIZON",
    batch_size=500,
    maximum_batching_window_in_seconds=2,
    name="count_jobs",
)
def count_jobs(event: Any) -> None:
    handle_count_changes(event)


@app.on_sqs_message(queue=queue_name(settings().stage, TASKS), batch_size=1, maximum_concurrency=5, name="run_tasks")
def run_tasks(event: Any) -> BatchResponse:
    return handle_task_messages(event)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep")
def sweep(_event: Any) -> None:
    handle_sweep()


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep_lines")
def sweep_lines(event: Any) -> None:
    handle_line_schedule(event)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep_deliveries")
def sweep_deliveries(event: Any) -> None:
    handle_delivery_schedule(event)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep_job_ends")
def sweep_job_ends(event: Any) -> None:
    handle_job_end_schedule(event)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep_batches")
def sweep_batches(event: Any) -> None:
    handle_batch_schedule(event)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep_bulk_operations")
def sweep_bulk_operations(event: Any) -> None:
    handle_bulk_schedule(event)


@app.on_ws_connect()
def websocket_connect(event: Any) -> dict[str, int]:
    return websocket.connect(event.to_dict())


@app.on_ws_message()
def websocket_message(event: Any) -> dict[str, int]:
    return websocket.message(event.to_dict())


@app.on_ws_disconnect()
def websocket_disconnect(event: Any) -> dict[str, int]:
    return websocket.disconnect(event.to_dict())
