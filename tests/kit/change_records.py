"""Records of the change stream, in DynamoDB's format."""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.dynamodb.jobs.item import JobItem, item_of
from chalicelib.domain.jobs.job import Job


def change(before: Job | None, after: Job) -> dict[str, Any]:
    """Return the stream record of a change of a job."""

    def image(job: Job) -> Any:
        return item_of(JobItem, job).to_dynamodb_dict()

    return {
        "eventID": "1",
        "eventName": "MODIFY" if before else "INSERT",
        "eventSource": "aws:dynamodb",
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:0:table/headrace-local-jobs/stream/x",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_700_000_000,
            "Keys": {"id": {"S": after.id}},
            "NewImage": image(after),
            **({"OldImage": image(before)} if before else {}),
            "SequenceNumber": "1",
            "SizeBytes": 100,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }
