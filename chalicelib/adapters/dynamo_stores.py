"""All stores of a stage at once."""

from __future__ import annotations

from functools import cached_property

from chalicelib.adapters.batch_rows import S3BatchRows
from chalicelib.adapters.blobs import Blobs
from chalicelib.adapters.dynamo_accounts import DynamoAccounts
from chalicelib.adapters.dynamo_batches import DynamoBatches
from chalicelib.adapters.dynamo_bodies import DynamoBodies
from chalicelib.adapters.dynamo_bulks import DynamoBulks
from chalicelib.adapters.dynamo_cache import DynamoCache
from chalicelib.adapters.dynamo_chunks import DynamoChunks
from chalicelib.adapters.dynamo_circuits import DynamoCircuits
from chalicelib.adapters.dynamo_connections import DynamoConnections, DynamoTickets
from chalicelib.adapters.dynamo_deliveries import DynamoDeliveries
from chalicelib.adapters.dynamo_dependencies import DynamoDependencies
from chalicelib.adapters.dynamo_jobs import DynamoJobs
from chalicelib.adapters.dynamo_leases import DynamoLeases
from chalicelib.adapters.dynamo_ledger import DynamoLedger
from chalicelib.adapters.dynamo_limits import DynamoMeters, DynamoSlots
from chalicelib.adapters.dynamo_pages import DynamoPages
from chalicelib.adapters.dynamo_results import DynamoResults
from chalicelib.adapters.dynamo_speeds import DynamoSpeeds
from chalicelib.adapters.dynamo_turnstiles import DynamoTurnstiles
from chalicelib.adapters.dynamo_watchers import DynamoWatchers
from chalicelib.adapters.files import S3Files
from chalicelib.adapters.uploads import S3Uploads


class DynamoStores:
    """Each store is made when it is first asked for; none makes a request or a client before it is used."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    @cached_property
    def blobs(self) -> Blobs:
        return Blobs(self.stage)

    @cached_property
    def jobs(self) -> DynamoJobs:
        return DynamoJobs(self.stage)

    @cached_property
    def job_specs(self) -> DynamoBodies:
        return DynamoBodies(self.stage, self.blobs)

    @cached_property
    def chunks(self) -> DynamoChunks:
        return DynamoChunks(self.stage)

    @cached_property
    def results(self) -> DynamoResults:
        return DynamoResults(self.stage, self.blobs)

    @cached_property
    def job_data(self) -> DynamoPages:
        return DynamoPages(self.stage, self.blobs)

    @cached_property
    def dependencies(self) -> DynamoDependencies:
        return DynamoDependencies(self.stage)

    @cached_property
    def uploads(self) -> S3Uploads:
        return S3Uploads(self.blobs)

    @cached_property
    def bulk_operations(self) -> DynamoBulks:
        return DynamoBulks(self.stage)

    @cached_property
    def deliveries(self) -> DynamoDeliveries:
        return DynamoDeliveries(self.stage)

    @cached_property
    def counters(self) -> DynamoLedger:
        return DynamoLedger(self.stage)

    @cached_property
    def batches(self) -> DynamoBatches:
        return DynamoBatches(self.stage)

    @cached_property
    def batch_rows(self) -> S3BatchRows:
        return S3BatchRows(self.blobs)

    @cached_property
    def subscriptions(self) -> DynamoWatchers:
        return DynamoWatchers(self.stage)

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
    def circuit_breakers(self) -> DynamoCircuits:
        return DynamoCircuits(self.stage)

    @cached_property
    def cache(self) -> DynamoCache:
        return DynamoCache(self.stage)

    @cached_property
    def throughput(self) -> DynamoSpeeds:
        return DynamoSpeeds(self.stage)

    @cached_property
    def semaphores(self) -> DynamoSlots:
        return DynamoSlots(self.stage)

    @cached_property
    def type_limiters(self) -> DynamoTurnstiles:
        return DynamoTurnstiles(self.stage)

    @cached_property
    def job_files(self) -> S3Files:
        return S3Files(self.blobs)

    @cached_property
    def request_counters(self) -> DynamoMeters:
        return DynamoMeters(self.stage)

    @cached_property
    def api_keys(self) -> DynamoAccounts:
        return DynamoAccounts(self.stage)
