"""Signing secrets and recipient allowlists of the tenants, in AWS Secrets Manager.

Secrets are named `headrace/<stage>/tenants/<tenant>/webhooks` and `.../addresses`. There are two,
because Secrets Manager has no compare-and-swap: storing a new allowlist can never bring back an old
signing secret. A name ends in a word of ours, because it must not end like the random part of an
ARN. Each secret costs $0.40 a month from its first use on.
"""

from __future__ import annotations

import json
from threading import Lock
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import tenant_secret_name
from chalicelib.adapters.aws.openai_credentials import ABSENT
from chalicelib.adapters.decoding import decode
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock

CACHE_TTL_MS = 60_000
SECRETS, ADDRESSES = "webhooks", "addresses"

Content = dict[str, Any]


class SecretsManagerNotificationSettings:
    """Calls: 1 to read (cached for a minute), 1 to write, 1 more the first time."""

    def __init__(self, stage: str, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock
        self._cache: dict[str, tuple[Ms, Content | None]] = {}
        self._lock = Lock()

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> SigningSecrets | None:
        content = self._read(tenant_secret_name(self._stage, tenant, SECRETS), fresh=fresh)
        return _secrets_of(content, tenant) if content is not None else None

    def create_signing_secrets(self, tenant: str, secrets: SigningSecrets) -> SigningSecrets:
        name = tenant_secret_name(self._stage, tenant, SECRETS)
        if self._create(name, _content(secrets)):
            return secrets
        stored = self._read(name, fresh=True)
        if stored is None:  # it was deleted, and its name is in use until the deletion is complete
            raise RuntimeError(f"{name} is being deleted; restore it, or wait")
        return _secrets_of(stored, tenant)

    def put_signing_secrets(self, tenant: str, secrets: SigningSecrets) -> None:
        self._put(tenant_secret_name(self._stage, tenant, SECRETS), _content(secrets))

    def allowlist(self, tenant: str, *, fresh: bool = False) -> RecipientAllowlist:
        content = self._read(tenant_secret_name(self._stage, tenant, ADDRESSES), fresh=fresh) or {}
        return _allowlist_of(content, tenant)

    def put_allowlist(self, tenant: str, allowlist: RecipientAllowlist) -> None:
        content = {"emails": list(allowlist.emails), "slack": dict(allowlist.slack)}
        self._put(tenant_secret_name(self._stage, tenant, ADDRESSES), content)

    def _read(self, name: str, *, fresh: bool) -> Content | None:
        """Return the content of a secret, None if it does not exist. An absence is not cached."""
        now = self._clock.now()
        with self._lock:
            cached = self._cache.get(name)
        if cached is not None and not fresh and now - cached[0] < CACHE_TTL_MS:
            return cached[1]
        content = _fetch(name)
        self._put_in_cache(name, content)
        return content

    def _put(self, name: str, content: Content) -> None:
        """Replace a secret. What only a newer version of the code has put there stays."""
        from botocore.exceptions import ClientError

        content = {**(self._read(name, fresh=True) or {}), **content}
        try:
            with aws.translate_errors():
                aws.client("secretsmanager").put_secret_value(SecretId=name, SecretString=json.dumps(content))
        except ClientError as exc:
            if aws.error_code(exc) not in ABSENT or not self._create(name, content):
                raise
        self._put_in_cache(name, content)

    def _create(self, name: str, content: Content) -> bool:
        from botocore.exceptions import ClientError

        try:
            with aws.translate_errors():
                aws.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(content))
        except ClientError as exc:
            if aws.error_code(exc) == "ResourceExistsException":
                return False
            raise
        self._put_in_cache(name, content)
        return True

    def _put_in_cache(self, name: str, content: Content | None) -> None:
        with self._lock:
            if content is None:
                self._cache.pop(name, None)
            else:
                self._cache[name] = (self._clock.now(), content)


def _fetch(name: str) -> Content | None:
    from botocore.exceptions import ClientError

    try:
        with aws.translate_errors():
            response = aws.client("secretsmanager").get_secret_value(SecretId=name)
    except ClientError as exc:
        if aws.error_code(exc) in ABSENT:
            return None
        raise
    content: Content = decode(name, lambda: dict(json.loads(response["SecretString"])))
    return content


def _secrets_of(content: Content, tenant: str) -> SigningSecrets:
    def build() -> SigningSecrets:
        current, previous = str(content["current"]), content.get("previous")
        return SigningSecrets(current=current, previous=previous, rotated_at=int(content.get("rotated_at", 0)))

    return decode(f"{tenant}/{SECRETS}", build)


def _allowlist_of(content: Content, tenant: str) -> RecipientAllowlist:
    def build() -> RecipientAllowlist:
        return RecipientAllowlist(emails=tuple(content.get("emails", ())), slack=dict(content.get("slack", {})))

    return decode(f"{tenant}/{ADDRESSES}", build)


def _content(secrets: SigningSecrets) -> Content:
    return {"current": secrets.current, "previous": secrets.previous, "rotated_at": secrets.rotated_at}
