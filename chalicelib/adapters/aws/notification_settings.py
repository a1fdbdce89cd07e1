"""What tenants sign with and whom they may write to, in AWS Secrets Manager: `headrace/<stage>/tenants/<tenant>/webhooks` and
`.../addresses`.

Two secrets, because Secrets Manager has no compare-and-swap: a new address book can never bring back an old signing secret. The last word
of a name is ours, since names must not end like the random part of an ARN. Each is $0.40 a month, from its first use on.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from threading import Lock
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.openai_credentials import ABSENT
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock

CACHE_TTL_MS = 60_000
SECRETS, ADDRESSES = "webhooks", "addresses"
LONGEST_NAME = 200  # of 512 that a secret's name may have
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.@=-]")

Content = dict[str, Any]


def secret_name(stage: str, tenant: str, what: str) -> str:
    """Every tenant has its own, whatever letters its name is made of: `+` begins what stands for another."""
    safe = _UNSAFE.sub(lambda found: b"+%02X" % found[0][0], tenant.encode("utf-8", "surrogatepass")).decode()
    if len(safe) > LONGEST_NAME:
        safe = f"+sha256+{sha256(tenant.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return f"headrace/{stage}/tenants/{safe}/{what}"


class SecretsManagerNotificationSettings:
    def __init__(self, stage: str, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock
        self._kept: dict[str, tuple[Ms, Content | None]] = {}
        self._lock = Lock()

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> SigningSecrets | None:
        content = self._read(secret_name(self._stage, tenant, SECRETS), fresh=fresh)
        return _seal(content) if content is not None else None

    def create_signing_secrets(self, tenant: str, seal: SigningSecrets) -> SigningSecrets:
        name = secret_name(self._stage, tenant, SECRETS)
        if self._create(name, _content(seal)):
            return seal
        there = self._read(name, fresh=True)
        if there is None:  # it was deleted, and its name is kept until that is done
            raise RuntimeError(f"{name} is being deleted; restore it, or wait")
        return _seal(there)

    def put_signing_secrets(self, tenant: str, seal: SigningSecrets) -> None:
        self._put(secret_name(self._stage, tenant, SECRETS), _content(seal))

    def allowlist(self, tenant: str, *, fresh: bool = False) -> RecipientAllowlist:
        content = self._read(secret_name(self._stage, tenant, ADDRESSES), fresh=fresh) or {}
        return RecipientAllowlist(emails=tuple(content.get("emails", ())), slack=dict(content.get("slack", {})))

    def put_allowlist(self, tenant: str, book: RecipientAllowlist) -> None:
        self._put(secret_name(self._stage, tenant, ADDRESSES), {"emails": list(book.emails), "slack": dict(book.slack)})

    def _read(self, name: str, *, fresh: bool) -> Content | None:
        """What is there; that nothing is, is not remembered."""
        now = self._clock.now()
        with self._lock:
            kept = self._kept.get(name)
        if kept is not None and not fresh and now - kept[0] < CACHE_TTL_MS:
            return kept[1]
        content = _fetch(name)
        self._keep(name, content)
        return content

    def _put(self, name: str, content: Content) -> None:
        from botocore.exceptions import ClientError

        try:
            with aws.translate_errors():
                aws.client("secretsmanager").put_secret_value(SecretId=name, SecretString=json.dumps(content))
        except ClientError as exc:
            if aws.error_code(exc) not in ABSENT or not self._create(name, content):
                raise
        self._keep(name, content)

    def _create(self, name: str, content: Content) -> bool:
        from botocore.exceptions import ClientError

        try:
            with aws.translate_errors():
                aws.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(content))
        except ClientError as exc:
            if aws.error_code(exc) == "ResourceExistsException":
                return False
            raise
        self._keep(name, content)
        return True

    def _keep(self, name: str, content: Content | None) -> None:
        with self._lock:
            if content is None:
                self._kept.pop(name, None)
            else:
                self._kept[name] = (self._clock.now(), content)


def _fetch(name: str) -> Content | None:
    from botocore.exceptions import ClientError

    try:
        with aws.translate_errors():
            answer = aws.client("secretsmanager").get_secret_value(SecretId=name)
    except ClientError as exc:
        if aws.error_code(exc) in ABSENT:
            return None
        raise
    content: Content = json.loads(answer["SecretString"])
    return content


def _seal(content: Content) -> SigningSecrets:
    return SigningSecrets(current=content["current"], previous=content.get("previous"), rotated_at=content.get("rotated_at", 0))


def _content(seal: SigningSecrets) -> Content:
    return {"current": seal.current, "previous": seal.previous, "rotated_at": seal.rotated_at}
