"""Names of a stage's AWS resources. Deployment and functions derive them from the stage and look nothing up.

Queues are named in `domain/queues/lanes.py`, which triggers need as well.
"""

from __future__ import annotations

import re
from hashlib import sha256

MAX_TENANT_LENGTH = 200  # a secret's name may have 512 characters
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.@=-]")


def table_name(stage: str, table: str) -> str:
    return f"headrace-{stage}-{table}"


def bucket_name(stage: str, account: str) -> str:
    """Bucket names are global, so the account is part of it."""
    return f"headrace-{stage}-content-{account}"


def openai_secret_name(stage: str) -> str:
    return f"headrace/{stage}/openai"


def tenant_secret_prefix(stage: str) -> str:
    """The beginning of the names of all secrets of tenants."""
    return f"headrace/{stage}/tenants/"


def tenant_secret_name(stage: str, tenant: str, kind: str) -> str:
    """Bytes of the tenant that Secrets Manager refuses are written as `+` and two hex digits; a long one is hashed."""
    safe = _UNSAFE.sub(lambda match: b"+%02X" % match[0][0], tenant.encode("utf-8", "surrogatepass")).decode()
    if len(safe) > MAX_TENANT_LENGTH:
        safe = f"+sha256+{sha256(tenant.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return f"{tenant_secret_prefix(stage)}{safe}/{kind}"
