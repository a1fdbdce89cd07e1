"""How AWS is reached: one session, one client for each service and endpoint, short timeouts, and errors in our own words.

On botocore, not boto3: its s3transfer alone costs 100 ms of a cold start. The timeouts are shorter than a lease (25 s) by far, because
botocore's own defaults (60 s, up to ten tries for DynamoDB) would outlive it: a worker would act on jobs that belong to others by then.
Region, credentials and `AWS_ENDPOINT_URL` come from the environment as botocore reads it, when the first client is built.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from chalicelib.domain.errors import Throttled, Unavailable

CONNECT_TIMEOUT = 1.0
READ_TIMEOUT = 3.0
ATTEMPTS = 3
CONNECTIONS = 50  # ten streams write, read and post at once; an idle connection costs nothing

# Told apart from other failures because the answer to them is to slow down. TransactionConflict is not in botocore's own retries, and a
# plain write meets it too (DynamoDB, "Transaction conflict handling"); OverLimit and KmsThrottled are of SQS.
CONFLICTS = frozenset({"TransactionConflict", "TransactionConflictException"})
THROTTLES = CONFLICTS | frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "ThrottlingError",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "BandwidthLimitExceeded",
        "SlowDown",
        "OverLimit",
        "KmsThrottled",
        "EC2ThrottledException",
        "TransactionInProgressException",
    }
)

TRANSIENT = frozenset(
    {"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"}
)  # though their status says that we are wrong

_lock = threading.Lock()


def client(
    service: str,
    *,
    region: str | None = None,
    endpoint_url: str | None = None,
    read_timeout: float = READ_TIMEOUT,
    attempts: int = ATTEMPTS,
    signature: str | None = None,
) -> Any:
    """The client of a service, built at its first use. Asking is cheap and safe from any thread, and so is the client itself.

    `signature` is botocore's `signature_version`, for S3: its links are signed the old way otherwise, which newer regions refuse.
    """
    with _lock:  # building one is not safe: botocore's session and loaders are shared
        return _client(service, region, endpoint_url, read_timeout, attempts, signature)


def reset_clients() -> None:
    """Build everything anew at the next use: for a process whose environment changed (tests, a fork)."""
    with _lock:
        _client.cache_clear()
        _session.cache_clear()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise what `translated` knows as that, and everything else (a refused request, a missing permission: bugs) as it is."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as exc:
        known = translate_error(exc)
        if known is None:
            raise
        raise known from exc


def translate_error(exc: Exception) -> Unavailable | None:
    """`Throttled` or `Unavailable`, if that is what an exception of botocore means; None if it means something else.

    After either, whether the request had its effect is unknown: botocore had repeated it, and the last answer is all one sees.
    """
    from botocore import exceptions as botocore

    if isinstance(exc, botocore.ClientError):
        return _from_response(exc.response)
    if isinstance(exc, (botocore.HTTPClientError, botocore.ConnectionError, botocore.IncompleteReadError)):
        return Unavailable()  # no connection, no answer in time, an answer cut short
    return None


def error_code(exc: BaseException | None) -> str:
    """AWS's name of the error that an exception of botocore carries; empty if it carries none."""
    return str(getattr(exc, "response", {}).get("Error", {}).get("Code", ""))


def _from_response(response: dict[str, Any]) -> Unavailable | None:
    codes = {response.get("Error", {}).get("Code", "")}
    if "TransactionCanceledException" in codes:
        codes = {reason.get("Code") for reason in response.get("CancellationReasons", [])} - {"None", None}
        return Throttled() if codes and codes <= THROTTLES else None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if codes & THROTTLES or status == 429:
        return Throttled()
    return Unavailable() if status >= 500 or codes & TRANSIENT else None


@cache
def _session() -> Any:
    import botocore.session

    return botocore.session.get_session()


@cache
def _client(service: str, region: str | None, endpoint_url: str | None, read_timeout: float, attempts: int, signature: str | None) -> Any:
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        signature_version=signature,
        s3={"addressing_style": "virtual"} if signature else None,  # links name the region's own host: a new bucket has no other yet
    )
    return _session().create_client(service, region_name=region, endpoint_url=endpoint_url, config=config)
