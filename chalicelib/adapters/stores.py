"""All stores of a stage."""

from __future__ import annotations

from functools import cached_property

from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys
from chalicelib.adapters.dynamodb.batches import DynamoBatches
from chalicelib.adapters.dynamodb.bulk_operations import DynamoBulkOperations
from chalicelib.adapters.dynamodb.chunks import DynamoChunks
from chalicelib.adapters.dynamodb.circuit_breakers import DynamoCircuitBreakers
from chalicelib.adapters.dynamodb.connections import DynamoConnections, DynamoTickets
from chalicelib.adapters.dynamodb.counters import DynamoCounters
from chalicelib.adapters.dynamodb.deliveries import DynamoDeliveries
from chalicelib.adapters.dynamodb.dependencies import DynamoDependencies
from chalicelib.adapters.dynamodb.job_data import DynamoJobData
from chalicelib.adapters.dynamodb.job_specs import DynamoJobSpecs
from chalicelib.adapters.dynamodb.jobs import DynamoJobs
from chalicelib.adapters.dynamodb.leases import DynamoLeases
from chalicelib.adapters.dynamodb.response_cache import DynamoResponseCache
from chalicelib.adapters.dynamodb.results import DynamoResults
from chalicelib.adapters.dynamodb.semaphores import DynamoRequestCounters, DynamoSemaphores
from chalicelib.adapters.dynamodb.subscriptions import DynamoSubscriptions
from chalicelib.adapters.dynamodb.throughput import DynamoThroughputStats
from chalicelib.adapters.dynamodb.type_limiters import DynamoTypeLimiters
from chalicelib.adapters.s3.batch_rows import S3BatchRows
from chalicelib.adapters.s3.blobs import Blobs
from chalicelib.adapters.s3.files import S3Files
from chalicelib.adapters.s3.uploads import S3Uploads


class DynamoStores:
    """Builds each store at its first use. No store makes a client or a request before it is used."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    @cached_property
    def blobs(self) -> Blobs:
        return Blobs(self.stage)

    @cached_property
    def jobs(self) -> DynamoJobs:
        return DynamoJobs(self.stage)

    @cached_property
    def job_specs(self) -> DynamoJobSpecs:
        return DynamoJobSpecs(self.stage, self.blobs)

    @cached_property
    def chunks(self) -> DynamoChunks:
        return DynamoChunks(self.stage)

    @cached_property
    def results(self) -> DynamoResults:
        return DynamoResults(self.stage, self.blobs)

    @cached_property
    def job_data(self) -> DynamoJobData:
        return DynamoJobData(self.stage, self.blobs)

    @cached_property
    def dependencies(self) -> DynamoDependencies:
        return DynamoDependencies(self.stage)

    @cached_property
    def uploads(self) -> S3Uploads:
        return S3Uploads(self.blobs)

    @cached_property
    def bulk_operations(self) -> DynamoBulkOperations:
        return DynamoBulkOperations(self.stage)

    @cached_property
    def deliveries(self) -> DynamoDeliveries:
        return DynamoDeliveries(self.stage)

    @cached_property
    def counters(self) -> DynamoCounters:
        return DynamoCounters(self.stage)

    @cached_property
    def batches(self) -> DynamoBatches:
        return DynamoBatches(self.stage)

    @cached_property
    def batch_rows(self) -> S3BatchRows:
        return S3BatchRows(self.blobs)

    @cached_property
    def subscriptions(self) -> DynamoSubscriptions:
        return DynamoSubscriptions(self.stage)

    @cached_property
    def connections(self) -> DynamoConnections:
        return DynamoConnections(self.stage)

    @cached_property
    def tickets(self) -> DynamoTickets:
        return DynamoTickets(self.stage)

    @cached_property
    def leases(self) -> DynamoLeases:
        return DynamoLeases(self.stage)

    @cached_property
    def circuit_breakers(self) -> DynamoCircuitBreakers:
        return DynamoCircuitBreakers(self.stage)

    @cached_property
    def cache(self) -> DynamoResponseCache:
        return DynamoResponseCache(self.stage)

    @cached_property
    def throughput(self) -> DynamoThroughputStats:
        return DynamoThroughputStats(self.stage)

    @cached_property
    def semaphores(self) -> DynamoSemaphores:
        return DynamoSemaphores(self.stage)

    @cached_property
    def type_limiters(self) -> DynamoTypeLimiters:
        return DynamoTypeLimiters(self.stage)

    @cached_property
    def job_files(self) -> S3Files:
        return S3Files(self.blobs)

    @cached_property
    def request_counters(self) -> DynamoRequestCounters:
        return DynamoRequestCounters(self.stage)

    @cached_property
    def api_keys(self) -> DynamoApiKeys:
        return DynamoApiKeys(self.stage)
