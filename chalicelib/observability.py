"""One structured line of log per fact, with its job, tenant and attempt as fields."""

from __future__ import annotations

from functools import cache
from typing import Any

from aws_lambda_powertools import Logger

from chalicelib.settings import settings


@cache
def logger() -> Logger:
    return Logger(service="headrace", level=settings().log_level, location=None)  # every line is written here, so its place says nothing


def record(fact: str, **fields: Any) -> None:
    """Log one fact. With `error=exc` it is an error and carries the exception's trace; nothing else is above information."""
    error = fields.pop("error", None)
    if error is None:
        logger().info(fact, extra=fields)
    else:
        logger().error(fact, extra=fields, exc_info=error)
