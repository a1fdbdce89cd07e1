"""Create, list and revoke the API keys of a deployment, with AWS credentials.

    python -m infra keys make --stage dev --tenant acme --role user --user alice
    python -m infra keys make --stage dev --tenant house --role admin --user ops --all-tenants
    python -m infra keys list --stage dev --tenant acme
    python -m infra keys revoke --stage dev --tenant acme --id key_01J...

The key is printed once; only its hash is stored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from ulid import ULID

from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys
from chalicelib.adapters.runtime.clock import SystemClock
from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.units import DAY_MS, rfc3339
from chalicelib.services.auth.authenticate import new_secret, secret_hash
from cli.checks.text_input import problem_of_text
from infra.local.reach import cloud_of

app = typer.Typer(no_args_is_help=True, add_completion=False, help="API keys of a deployment.")
MAX_NAME_LENGTH = 128  # characters of a tenant or user name: both are part of index keys, which DynamoDB limits to 2 KB
MAX_DAYS = 36_500  # a later year could not be written as a date
Stage = Annotated[str, typer.Option(help="The stage, such as dev.")]
Tenant = Annotated[str, typer.Option(help="The tenant that the key belongs to.")]


def make_key(stage: str, tenant: str, role: str, user: str, days: int | None = None, *, all_tenants: bool = False) -> str:
    """Create a key and return its secret, which cannot be read again."""
    secret, now = new_secret("hr_"), SystemClock().now()
    key = Key(
        id=f"key_{ULID()}",
        hash=secret_hash(secret),
        tenant=tenant,
        user=user,
        role=Role.named(role),
        created_at=now,
        expires_at=now + days * DAY_MS if days else None,
        all_tenants=all_tenants,
    )
    DynamoApiKeys(stage).put_key(key)
    return secret


@app.command()
def make(
    stage: Stage,
    tenant: Tenant,
    role: Annotated[str, typer.Option(help="viewer, user, operator or admin.")] = "user",
    user: Annotated[str, typer.Option(help="The user that the key identifies.")] = "default",
    days: Annotated[int | None, typer.Option(help="Days until the key expires; by default never.", min=1, max=MAX_DAYS)] = None,
    all_tenants: Annotated[bool, typer.Option(help="Make it an admin of all tenants, for whoever runs the stage.")] = False,
) -> None:
    """Create a key and print it. It cannot be shown again."""
    if role.upper() not in Role.__members__:
        raise typer.BadParameter("must be viewer, user, operator or admin", param_hint="--role")
    for option, name in (("--tenant", tenant), ("--user", user)):
        if not 1 <= len(name) <= MAX_NAME_LENGTH:
            raise typer.BadParameter(f"must have 1 to {MAX_NAME_LENGTH} characters", param_hint=option)
        if problem := problem_of_text(name):
            raise typer.BadParameter(problem, param_hint=option)
    if all_tenants and role != "admin":
        raise typer.BadParameter("only an admin may be of all tenants", param_hint="--all-tenants")
    cloud_of(stage).bind_this_process()
    print(make_key(stage, tenant, role, user, days, all_tenants=all_tenants))


@app.command("list")
def list_keys(stage: Stage, tenant: Tenant) -> None:
    """List a tenant's keys, without their secrets."""
    for key in _api_keys(stage).keys(tenant):
        ends = f"revoked {rfc3339(key.revoked_at)}" if key.revoked_at else f"expires {rfc3339(key.expires_at) or 'never'}"
        print(f"{key.id}  {key.role.label:8}  {key.user:20}  {ends}{'  of all tenants' if key.all_tenants else ''}")


@app.command()
def revoke(stage: Stage, tenant: Tenant, key_id: Annotated[str, typer.Option("--id", help="The id that `list` prints.")]) -> None:
    """Revoke a key. Functions reject it within 60 seconds."""
    api_keys = _api_keys(stage)
    found = next((key for key in api_keys.keys(tenant) if key.id == key_id), None)
    if found is None:
        raise typer.BadParameter(f"{tenant} has no such key", param_hint="--id")
    api_keys.put_key(replace(found, revoked_at=SystemClock().now()))
    print(f"{key_id} is revoked.")


def _api_keys(stage: str) -> DynamoApiKeys:
    cloud_of(stage).bind_this_process()
    return DynamoApiKeys(stage)
