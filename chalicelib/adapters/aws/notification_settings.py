"""Signing secrets and recipient allowlists of the tenants, in AWS Secrets Manager.

Secrets are named `headrace/<stage>/tenants/<tenant>/webhooks` and `.../addresses`. There are two,
because Secrets Manager has no compare-and-swap: storing a new allowlist can never bring back an old
signing secret. A name ends in a word of ours, because it must not end like the random part of an
ARN. Each secret costs $0.40 a month from its first use on.

Reading a secret costs forty times as much as reading an item, so a row in DynamoDB says which
version of it is current. The secret is read again when the row names another version than its
content does, and every 15 minutes. The row is written before the secret, so that a process that
dies in between leaves a secret that is read too often, and never one that is read too late; and
after it, in case another process changed the secret at the same time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import tenant_secret_name
from chalicelib.adapters.aws.openai_credentials import ABSENT
from chalicelib.adapters.decoding import decode
from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, SecretVersions

VERSION_TTL_MS = 30_000  # how long a secret is used before its version is compared
SECRET_TTL_MS = 900_000  # how long it is used while its version stays the same
UNVERSIONED_TTL_MS = 60_000  # the same of a secret without a version, and of the absence of a secret
MAX_CACHED = 10_000  # secrets in one environment, about 1 KB each
VERSION = "version"  # in the content
SECRETS, ADDRESSES = "webhooks", "addresses"

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CachedSecret:
    """A secret as an environment has read it. `content`: None if there is none."""

    content: Content | None
    read_at: Ms
    checked_at: Ms  # when its version was compared last

    def is_current(self, version: str | None, now: Ms) -> bool:
        """Whether it is still the secret if the current version is `version`."""
        known = self.content.get(VERSION) if self.content is not None else None
        return known == version and now - self.read_at < (SECRET_TTL_MS if known is not None else UNVERSIONED_TTL_MS)


class SecretsManagerNotificationSettings:
    """Calls: in an environment and for each secret, 1 for its version every 30 s and 1 to read it every
    15 minutes and after a change; 4 to write, 1 more the first time.
    """

    def __init__(self, stage: str, clock: Clock, versions: SecretVersions) -> None:
        self._stage = stage
        self._clock = clock
        self._versions = versions
        self._cache = BoundedCache[str, CachedSecret](MAX_CACHED)

    def signing_secrets(self, tenant: str, *, fresh: bool = False) -> SigningSecrets | None:
        content = self._read(tenant_secret_name(self._stage, tenant, SECRETS), fresh=fresh)
        return _secrets_of(content, tenant) if content is not None else None

    def create_signing_secrets(self, tenant: str, secrets: SigningSecrets) -> SigningSecrets:
        name = tenant_secret_name(self._stage, tenant, SECRETS)
        if self._create(name, _content(secrets)):
            return secrets
        self._cache.remove(name)  # another process has created it, and may not have stored its version yet
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
        """Return the content of a secret, None if it does not exist.

        Args:
            fresh: compare its version now, with a consistent read.
        """
        now, cached = self._clock.now(), self._cache.get(name)
        if cached is not None and not fresh and now - cached.checked_at < VERSION_TTL_MS:
            return cached.content
        version = self._versions.get(name, consistent=fresh)
        if cached is not None and cached.is_current(version, now):
            self._cache.put(name, replace(cached, checked_at=now))
            return cached.content
        content = _fetch(name)
        self._cache.put(name, CachedSecret(content, read_at=now, checked_at=now))
        return content

    def _put(self, name: str, content: Content) -> None:
        """Replace a secret. What only a newer version of the code has put there stays.

        It is read for that, never taken from the cache: whoever changed it may not have stored its
        version yet, or not know that secrets have versions.
        """
        from botocore.exceptions import ClientError

        stored = {**(_fetch(name) or {}), **content, VERSION: token_hex(8)}
        self._versions.put(name, stored[VERSION])
        try:
            with aws.translate_errors():
                aws.client("secretsmanager").put_secret_value(SecretId=name, SecretString=json.dumps(stored))
        except ClientError as exc:
            if aws.error_code(exc) not in ABSENT or not self._create(name, content):
                raise
        else:
            self._written(name, stored)

    def _create(self, name: str, content: Content) -> bool:
        """Store a new secret. Return False if there is one already."""
        from botocore.exceptions import ClientError

        stored = content | {VERSION: token_hex(8)}
        try:
            with aws.translate_errors():
                aws.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(stored))
        except ClientError as exc:
            if aws.error_code(exc) == "ResourceExistsException":
                return False
            raise
        self._written(name, stored)
        return True

    def _written(self, name: str, stored: Content) -> None:
        self._versions.put(name, stored[VERSION])
        now = self._clock.now()
        self._cache.put(name, CachedSecret(stored, read_at=now, checked_at=now))


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
