"""Clients of AWS: one for each service and endpoint, with short timeouts and translated errors.

Uses botocore and not boto3, whose s3transfer alone costs 100 ms of a cold start. The timeouts are
far shorter than a lease (25 s). botocore's defaults (60 s, up to ten tries for DynamoDB) would
outlive it, and a worker would act on jobs that another worker owns by then. Region, credentials and
`AWS_ENDPOINT_URL` come from the environment when the first client is built.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from chalicelib.domain.errors import Throttled, Unavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

CONNECT_TIMEOUT = 1.0
READ_TIMEOUT = 3.0
ATTEMPTS = 3
CONNECTIONS = 50  # ten streams write, read and send frames at once; an idle connection costs nothing

# Another write on the same item was under way: a moment later this one succeeds. botocore does not repeat it.
# A plain write can meet a transaction too (DynamoDB, "Transaction conflict handling").
CANCELLED = "TransactionCanceledException"
CONFLICTS = frozenset({"TransactionConflict", "TransactionConflictException"})
# Errors to which the response is to slow down. OverLimit and KmsThrottled are errors of SQS.
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

TRANSIENT = frozenset({"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"})  # with a status of 400

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
    """Return the client of a service, built at its first use.

    Cheap, and safe from any thread; so is the client. `signature` is botocore's
    `signature_version`. S3 needs it: by default its links are signed the old way, which newer
    regions refuse.
    """
    with _lock:  # building a client is not thread-safe: botocore's session and loaders are shared
        return _client(service, region, endpoint_url, read_timeout, attempts, signature)


def reset_clients() -> None:
    """Build all clients again at their next use, after the environment of the process changed."""
    with _lock:
        _client.cache_clear()
        _session.cache_clear()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `Throttled` or `Unavailable` instead of botocore's exception, if it means that.

    Other exceptions (an invalid request, a missing permission) are bugs and pass unchanged.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as exc:
        translated = translate_error(exc)
        if translated is None:
            raise
        raise translated from exc


def translate_error(exc: Exception) -> Unavailable | None:
    """Return `Throttled` or `Unavailable` if an exception of botocore means that, else None.

    Whether the request had its effect is unknown then: botocore has repeated it, and only the last
    response is visible.
    """
    from botocore import exceptions as botocore

    if isinstance(exc, botocore.ClientError):
        return _from_response(exc)
    if isinstance(exc, (botocore.HTTPClientError, botocore.ConnectionError, botocore.IncompleteReadError)):
        return Unavailable()  # no connection, no response in time, a response cut short
    return None


def error_code(exc: BaseException | None) -> str:
    """Return AWS's error code in an exception of botocore; empty if there is none."""
    return str(getattr(exc, "response", {}).get("Error", {}).get("Code", ""))


def cancellation_codes(exc: BaseException | None) -> set[str]:
    """Return why DynamoDB cancelled a transaction; empty if it did not, or did not say."""
    reasons = getattr(exc, "response", {}).get("CancellationReasons") or []
    return {reason["Code"] for reason in reasons if reason.get("Code") not in ("None", None)}


def is_conflict(exc: BaseException | None) -> bool:
    """Whether a write had no effect for the sole reason that it met another one on the same item."""
    codes = cancellation_codes(exc) if error_code(exc) == CANCELLED else {error_code(exc)}
    return bool(codes) and codes <= CONFLICTS


def _from_response(exc: ClientError) -> Unavailable | None:
    codes = {error_code(exc)}
    if CANCELLED in codes:
        codes = cancellation_codes(exc)
        return Throttled() if codes and codes <= THROTTLES else None
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
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
        s3={"addressing_style": "virtual"} if signature else None,  # links name the host of the region: a new bucket has no other yet
    )
    return _session().create_client(service, region_name=region, endpoint_url=endpoint_url, config=config)
