"""The DynamoDB tables.

`template.py` turns them into CloudFormation and the contract tests create them in moto with
`create_table(**...)`, so both have the same keys and indexes. This module does not need boto3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.naming import table_name

TTL_ATTRIBUTE = "ttl"


@dataclass(frozen=True)
class Index:
    """A global secondary index.

    Without `include` it holds keys only, so changes of other attributes never rewrite its entries.
    """

    name: str
    hash_key: str
    range_key: str
    range_type: str = "S"
    include: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table."""

    name: str
    hash_key: str
    range_key: str | None = None
    indexes: tuple[Index, ...] = ()
    stream: bool = False
    ttl: bool = True
    recovery: tuple[str, ...] = ()  # stages with point-in-time recovery
    protected: tuple[str, ...] = ("prod",)  # stages with deletion protection


TABLES: tuple[Table, ...] = (
    Table(
        "jobs",
        "id",
        stream=True,
        recovery=("local", "dev", "prod"),
        indexes=(
            Index("by_tenant", "g_t", "id", include=("type", "user", "batch")),
            Index("by_user", "g_u", "id"),
            Index("by_state", "g_s", "g_sk"),
            Index("due", "g_d", "due_at", range_type="N"),
            Index("by_line", "g_l", "g_lk", include=("type", "lane", "model", "user", "t", "queued", "gen", "tokens", "crashes")),
        ),
    ),
    Table("job_data", "id", "sk", recovery=("prod",)),
    Table("coordination", "pk", "sk"),
    Table("counters", "pk", "sk", recovery=("local", "dev", "prod")),
    Table("accounts", "pk", "sk", ttl=False, recovery=("local", "dev", "prod"), protected=("dev", "prod")),
)


def create_table_arguments(table: Table, stage: str) -> dict[str, Any]:
    """The arguments of boto3's `create_table` for this table."""
    arguments: dict[str, Any] = {
        "TableName": table_name(stage, table.name),
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": _attributes(table),
        "KeySchema": _key_schema(table.hash_key, table.range_key),
        "DeletionProtectionEnabled": stage in table.protected,
    }
    if table.indexes:
        arguments["GlobalSecondaryIndexes"] = [_index(index) for index in table.indexes]
    if table.stream:
        arguments["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    return arguments


def _attributes(table: Table) -> list[dict[str, str]]:
    types = {table.hash_key: "S"}
    if table.range_key:
        types[table.range_key] = "S"
    for index in table.indexes:
        types[index.hash_key] = "S"
        types[index.range_key] = index.range_type
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in types.items()]


def _key_schema(hash_key: str, range_key: str | None) -> list[dict[str, str]]:
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    return keys + ([{"AttributeName": range_key, "KeyType": "RANGE"}] if range_key else [])


def _index(index: Index) -> dict[str, Any]:
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY"}
    if index.include:
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.include)}
    return {"IndexName": index.name, "KeySchema": _key_schema(index.hash_key, index.range_key), "Projection": projection}
