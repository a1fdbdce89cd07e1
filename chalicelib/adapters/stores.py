"""All stores of a stage, in DynamoDB and S3.

Each is imported and built at its first use, and makes no client or request before that.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chalicelib.adapters.s3.blobs import Blobs
    from chalicelib.ports import (
        ApiKeys,
        Batches,
        BatchRows,
        BulkOperations,
        Chunks,
        CircuitBreakers,
        Connections,
        Counters,
        Deliveries,
        Dependencies,
        JobData,
        JobFiles,
        Jobs,
        JobSpecs,
        Leases,
        Lines,
        Pauses,
        Rates,
        RequestCounters,
        ResponseCache,
        Results,
        SecretVersions,
        Semaphores,
        Subscriptions,
        TenantLimitsStore,
        ThroughputStats,
        Tickets,
        Uploads,
    )


class DynamoStores:
    """The stores, under the names that the contexts of the services use."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def shards_of(self, tenant: str) -> int:
        """In how many shards the indexes may have the jobs of a tenant. The container has a cache for it."""
        limits = self.tenant_limits.get(tenant)
        return limits.shards if limits is not None else 1

    @cached_property
    def blobs(self) -> Blobs:
        from chalicelib.adapters.s3.blobs import Blobs

        return Blobs(self.stage)

    @cached_property
    def lines(self) -> Lines:
        from chalicelib.adapters.dynamodb.lines import DynamoLines

        return DynamoLines(self.stage, self.shards_of)

    @cached_property
    def jobs(self) -> Jobs:
        from chalicelib.adapters.dynamodb.jobs.records import DynamoJobs

        return DynamoJobs(self.stage, self.shards_of)

    @cached_property
    def job_specs(self) -> JobSpecs:
        from chalicelib.adapters.dynamodb.job_specs import DynamoJobSpecs

        return DynamoJobSpecs(self.stage, self.blobs)

    @cached_property
    def chunks(self) -> Chunks:
        from chalicelib.adapters.dynamodb.chunks import DynamoChunks

        return DynamoChunks(self.stage)

    @cached_property
    def results(self) -> Results:
        from chalicelib.adapters.dynamodb.results import DynamoResults

        return DynamoResults(self.stage, self.blobs)

    @cached_property
    def job_data(self) -> JobData:
        from chalicelib.adapters.dynamodb.job_data import DynamoJobData

        return DynamoJobData(self.stage, self.blobs)

    @cached_property
    def dependencies(self) -> Dependencies:
        from chalicelib.adapters.dynamodb.dependencies import DynamoDependencies

        return DynamoDependencies(self.stage)

    @cached_property
    def uploads(self) -> Uploads:
        from chalicelib.adapters.s3.uploads import S3Uploads

        return S3Uploads(self.blobs)

    @cached_property
    def job_files(self) -> JobFiles:
        from chalicelib.adapters.s3.files import S3Files

        return S3Files(self.blobs)

    @cached_property
    def bulk_operations(self) -> BulkOperations:
        from chalicelib.adapters.dynamodb.bulk_operations import DynamoBulkOperations

        return DynamoBulkOperations(self.stage)

    @cached_property
    def deliveries(self) -> Deliveries:
        from chalicelib.adapters.dynamodb.deliveries import DynamoDeliveries

        return DynamoDeliveries(self.stage)

    @cached_property
    def secret_versions(self) -> SecretVersions:
        from chalicelib.adapters.dynamodb.secret_versions import DynamoSecretVersions

        return DynamoSecretVersions(self.stage)

    @cached_property
    def counters(self) -> Counters:
        from chalicelib.adapters.dynamodb.counters import DynamoCounters

        return DynamoCounters(self.stage)

    @cached_property
    def batches(self) -> Batches:
        from chalicelib.adapters.dynamodb.batches import DynamoBatches

        return DynamoBatches(self.stage)

    @cached_property
    def batch_rows(self) -> BatchRows:
        from chalicelib.adapters.s3.batch_rows import S3BatchRows

        return S3BatchRows(self.blobs)

    @cached_property
    def subscriptions(self) -> Subscriptions:
        from chalicelib.adapters.dynamodb.subscriptions import DynamoSubscriptions

        return DynamoSubscriptions(self.stage)

    @cached_property
    def connections(self) -> Connections:
        from chalicelib.adapters.dynamodb.connections import DynamoConnections

        return DynamoConnections(self.stage)

    @cached_property
    def tickets(self) -> Tickets:
        from chalicelib.adapters.dynamodb.connections import DynamoTickets

        return DynamoTickets(self.stage)

    @cached_property
    def leases(self) -> Leases:
        from chalicelib.adapters.dynamodb.leases import DynamoLeases

        return DynamoLeases(self.stage)

    @cached_property
    def circuit_breakers(self) -> CircuitBreakers:
        from chalicelib.adapters.dynamodb.circuit_breakers import DynamoCircuitBreakers

        return DynamoCircuitBreakers(self.stage)

    @cached_property
    def pauses(self) -> Pauses:
        from chalicelib.adapters.dynamodb.limits.pauses import DynamoPauses

        return DynamoPauses(self.stage)

    @cached_property
    def cache(self) -> ResponseCache:
        from chalicelib.adapters.dynamodb.response_cache import DynamoResponseCache

        return DynamoResponseCache(self.stage)

    @cached_property
    def throughput(self) -> ThroughputStats:
        from chalicelib.adapters.dynamodb.throughput import DynamoThroughputStats

        return DynamoThroughputStats(self.stage)

    @cached_property
    def semaphores(self) -> Semaphores:
        from chalicelib.adapters.dynamodb.semaphores import DynamoSemaphores

        return DynamoSemaphores(self.stage)

    @cached_property
    def tenant_limits(self) -> TenantLimitsStore:
        from chalicelib.adapters.dynamodb.limits.tenant_limits import DynamoTenantLimits

        return DynamoTenantLimits(self.stage)

    @cached_property
    def rates(self) -> Rates:
        from chalicelib.adapters.dynamodb.rates import DynamoRates

        return DynamoRates(self.stage)

    @cached_property
    def request_counters(self) -> RequestCounters:
        from chalicelib.adapters.dynamodb.semaphores import DynamoRequestCounters

        return DynamoRequestCounters(self.stage)

    @cached_property
    def api_keys(self) -> ApiKeys:
        from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys

        return DynamoApiKeys(self.stage)
