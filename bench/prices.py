"""AWS prices for us-east-1 and arm64, without free tiers and discounts, each with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """The price of one unit."""

    dollars: float
    unit: str
    source: str


MILLION = 1_000_000
GB = 1_000_000_000

WRITE = Price(0.625 / MILLION, "write request unit", "aws.amazon.com/dynamodb/pricing/on-demand, since 2024-11")
READ = Price(0.125 / MILLION, "read request unit", "aws.amazon.com/dynamodb/pricing/on-demand, since 2024-11")
STORAGE = Price(0.25 / GB, "byte-month", "aws.amazon.com/dynamodb/pricing/on-demand, standard table class")
SQS_REQUEST = Price(0.40 / MILLION, "request of 64 KB", "aws.amazon.com/sqs/pricing, standard queues")
FRAME = Price(1.00 / MILLION, "message of 32 KB", "aws.amazon.com/api-gateway/pricing, WebSocket, first 1 billion")
CONNECTED = Price(0.25 / MILLION, "connection-minute", "aws.amazon.com/api-gateway/pricing, WebSocket")
REST_CALL = Price(3.50 / MILLION, "call", "aws.amazon.com/api-gateway/pricing, REST, first 333 million")
INVOCATION = Price(0.20 / MILLION, "request", "aws.amazon.com/lambda/pricing, arm64")
GB_SECOND = Price(0.0000133334, "GB-second", "aws.amazon.com/lambda/pricing, arm64, first 7.5 billion")
S3_PUT = Price(5.00 / MILLION, "put", "aws.amazon.com/s3/pricing, standard")
LOG_BYTE = Price(0.50 / GB, "byte ingested", "aws.amazon.com/cloudwatch/pricing, standard log class")
SENT_BYTE = Price(0.09 / GB, "byte out to the internet", "aws.amazon.com/ec2/pricing/on-demand, data transfer, first 10 TB")
