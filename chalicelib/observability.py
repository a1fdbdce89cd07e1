"""Write the structured log: one JSON line per event, with job, tenant and attempt as fields."""

from __future__ import annotations

from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from chalicelib.settings import settings


@cache
def logger() -> Logger:
    return Logger(service="headrace", level=settings().log_level, location=None)  # the location would always be this module


def record(fact: str, **fields: Any) -> None:
    """Log one event by its key. With `error=exc` at level ERROR with the traceback, else at INFO."""
    error = fields.pop("error", None)
    if error is None:
        logger().info(fact, extra=fields)
    else:
        logger().error(fact, extra=fields, exc_info=error)
