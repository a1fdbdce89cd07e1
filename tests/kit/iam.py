"""IAM in front of moto: each call of an AWS client is allowed by the role that makes it, or refused as on AWS.

moto keeps the roles and decides about their statements. But it reads no resource from most calls
(its own enforcement would refuse every DynamoDB call, because the statements name tables), ignores
conditions, and knows neither that a transaction needs the rights of its parts nor that a missing
object is `AccessDenied` for who may not list the bucket. So what a call asks for is read here from
the call, by AWS's Service Authorization Reference.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from botocore.exceptions import ClientError
from moto.iam.access_control import IAMPolicy, PermissionResult

from chalicelib.adapters.aws import client as aws
from infra.naming import API_STAGE

ACCOUNT = "123456789012"  # moto's
REGION = "us-east-1"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
CODES = {"s3": "AccessDenied", "ses": "AccessDenied", "execute-api": "ForbiddenException"}  # all others: AccessDeniedException

Policy = Mapping[str, Any]
Params = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Ask:
    """One action on one resource. `prefix`: the condition key `s3:prefix`, of requests that have it."""

    action: str
    resource: str
    prefix: str | None = None

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}" + (f" with the prefix {self.prefix}" if self.prefix is not None else "")


class Roles:
    """The roles of a stage's functions. `asked` has what each role has asked for, `refused` what was refused."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        iam = aws.client("iam")
        self.asked: defaultdict[str, set[Ask]] = defaultdict(set)
        self.refused: list[tuple[str, Ask]] = []
        self._policies: dict[str, Policy] = {}
        self._role: str | None = None
        self._decided: dict[tuple[str, Ask], bool] = {}
        for role, policy in policies.items():
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST))
            iam.put_role_policy(RoleName=role, PolicyName=role, PolicyDocument=json.dumps(policy))
            self._policies[role] = iam.get_role_policy(RoleName=role, PolicyName=role)["PolicyDocument"]
        events = aws._session().get_component("event_emitter")
        events.register("provide-client-params", self._check, unique_id="roles-check")
        events.register("after-call.s3.GetObject", self._hide_absence, unique_id="roles-hide")
        aws._client.cache_clear()  # a client copies the session's handlers when it is made

    @contextmanager
    def acting_as(self, role: str) -> Iterator[None]:
        """Make calls with the rights of a role; outside of this everything is allowed."""
        outer, self._role = self._role, role
        try:
            yield
        finally:
            self._role = outer

    def _check(self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        if self._role is None:
            return
        context["role"], context["asks"] = self._role, asks_of(model.service_model.signing_name, model.name, params)
        for ask in context["asks"]:
            self.asked[self._role].add(ask)
            if not self._may(self._role, ask):
                self.refused.append((self._role, ask))
                raise _refusal(model, f"{self._role} is not authorized to perform: {ask}")

    def _may(self, role: str, ask: Ask) -> bool:
        if (role, ask) not in self._decided:
            self._decided[role, ask] = allows(self._policies[role], ask)
        return self._decided[role, ask]

    def _hide_absence(self, parsed: dict[str, Any], http_response: Any, context: dict[str, Any], **_: Any) -> None:
        """S3 tells only who may list a bucket that an object is not there."""
        if "role" not in context or parsed.get("Error", {}).get("Code") != "NoSuchKey":
            return
        bucket, _, key = context["asks"][0].resource.partition("/")
        may_list = Ask("s3:ListBucket", bucket, key)
        self.asked[context["role"]].add(may_list)
        if not self._may(context["role"], may_list):
            self.refused.append((context["role"], may_list))
            parsed["Error"] |= {"Code": "AccessDenied", "Message": f"{context['role']} is not authorized to perform: {may_list}"}
            parsed["ResponseMetadata"]["HTTPStatusCode"] = http_response.status_code = 403


def allows(policy: Policy, ask: Ask) -> bool:
    """Whether a policy allows it, as moto decides once the statements are left out whose condition does not hold."""
    statements = [statement for statement in policy["Statement"] if _condition_holds(statement.get("Condition", {}), ask)]
    document = json.dumps({**policy, "Statement": [{k: v for k, v in one.items() if k != "Condition"} for one in statements]})
    return IAMPolicy(document).is_action_permitted(ask.action, ask.resource) is PermissionResult.PERMITTED


def _condition_holds(condition: Mapping[str, Mapping[str, Any]], ask: Ask) -> bool:
    for operator, keys in condition.items():
        for key, patterns in keys.items():
            assert operator in ("StringLike", "StringLikeIfExists"), f"teach tests/kit/iam.py the condition {operator}"
            assert key == "s3:prefix", f"teach tests/kit/iam.py the condition key {key}"
            if ask.prefix is None:
                return operator.endswith("IfExists")
            if not any(fnmatchcase(ask.prefix, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns)):
                return False
    return True


def _refusal(model: Any, message: str) -> ClientError:
    code = CODES.get(model.service_model.signing_name, "AccessDeniedException")
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    return ClientError(cast(Any, response), model.name)


def asks_of(service: str, operation: str, params: Params) -> list[Ask]:
    """What a call asks IAM for: an action on a resource, several for a call that consists of several."""
    assert service in _SERVICES, f"tests/kit/iam.py does not know what a call of {service} asks IAM for: teach it {operation}"
    return _SERVICES[service](operation, params)


def _dynamodb(operation: str, params: Params) -> list[Ask]:
    """Transactions ask for the right of each part: `TransactWriteItems` is no action."""
    if operation == "TransactWriteItems":
        return [
            Ask(f"dynamodb:{'ConditionCheckItem' if kind == 'ConditionCheck' else f'{kind}Item'}", _table(part["TableName"]))
            for item in params["TransactItems"]
            for kind, part in item.items()
        ]
    assert operation != "TransactGetItems", "teach tests/kit/iam.py TransactGetItems"
    if operation == "ListStreams":
        return [Ask("dynamodb:ListStreams", "*")]
    if "StreamArn" in params or "ShardIterator" in params:  # moto's iterators begin with the ARN of their stream
        return [Ask(f"dynamodb:{operation}", params.get("StreamArn") or params["ShardIterator"].split("|")[0])]
    if "RequestItems" in params:
        return [Ask(f"dynamodb:{operation}", _table(table)) for table in params["RequestItems"]]
    index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
    return [Ask(f"dynamodb:{operation}", _table(params["TableName"]) + index)]


def _table(name: str) -> str:
    return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}"


def _sqs(operation: str, params: Params) -> list[Ask]:
    name = params["QueueName"] if "QueueName" in params else params["QueueUrl"].rsplit("/", 1)[-1]
    return [Ask(f"sqs:{operation.removesuffix('Batch')}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")]


_S3_ACTIONS = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObject": "DeleteObject",
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "UploadPart": "PutObject",
}


def _s3(operation: str, params: Params) -> list[Ask]:
    bucket = f"arn:aws:s3:::{params['Bucket']}"
    if operation == "ListObjectsV2":
        return [Ask("s3:ListBucket", bucket, params.get("Prefix"))]
    if operation == "DeleteObjects":
        return [Ask("s3:DeleteObject", f"{bucket}/{found['Key']}") for found in params["Delete"]["Objects"]]
    tagging = ["PutObjectTagging"] if "Tagging" in params else []
    return [Ask(f"s3:{action}", f"{bucket}/{params['Key']}") for action in (_S3_ACTIONS[operation], *tagging)]


def _secretsmanager(operation: str, params: Params) -> list[Ask]:
    name = params["Name"] if operation == "CreateSecret" else params["SecretId"]
    return [Ask(f"secretsmanager:{operation}", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-a1b2c3")]


def _ses(operation: str, params: Params) -> list[Ask]:
    """Who may send is decided by the sender's identity, and in the sandbox by the recipient's as well."""
    return [Ask(f"ses:{operation}", f"arn:aws:ses:{REGION}:{ACCOUNT}:identity/{address}") for address in _ses_addresses(params)]


def _ses_addresses(params: Params) -> list[str]:
    return [params["Source"], *params["Destination"].get("ToAddresses", [])]


def _execute_api(operation: str, params: Params) -> list[Ask]:
    method = {"PostToConnection": "POST", "GetConnection": "GET", "DeleteConnection": "DELETE"}[operation]
    path = f"{API_STAGE}/{method}/@connections/{params['ConnectionId']}"
    return [Ask("execute-api:ManageConnections", f"arn:aws:execute-api:{REGION}:{ACCOUNT}:abc123/{path}")]


def _without_resource(service: str) -> Callable[[str, Params], list[Ask]]:
    return lambda operation, _: [Ask(f"{service}:{operation}", "*")]


def _identity(operation: str, _: Params) -> list[Ask]:
    """`GetCallerIdentity` is allowed to everybody, even against a Deny."""
    return [] if operation == "GetCallerIdentity" else [Ask(f"sts:{operation}", "*")]


_SERVICES: dict[str, Callable[[str, Params], list[Ask]]] = {
    "dynamodb": _dynamodb,
    "execute-api": _execute_api,
    "monitoring": _without_resource("cloudwatch"),
    "s3": _s3,
    "secretsmanager": _secretsmanager,
    "ses": _ses,
    "sqs": _sqs,
    "sts": _identity,
}
