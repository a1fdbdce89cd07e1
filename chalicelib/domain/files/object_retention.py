"""How long objects of jobs stay at most. Life-cycle rules of the bucket remove them afterwards.

The product deletes the objects of a job that is deleted. Nobody deletes those of a job that ends by
its TTL, because DynamoDB removes its items without a word.
"""

from __future__ import annotations

JOBS_FOLDER, BATCHES_FOLDER = "p/", "batches/"
RESULT_TAG = ("kept", "result")  # results and files of attempts: written at the end, kept 30 days from then
RESULT_DAYS = 35
# A job spec: 30 days until the job may start, 30 more until it expires, then 30 days of retention.
# Where a job is given more time, its object is written again (`JobSpecs.extend_ttl`).
SPEC_DAYS = 95
