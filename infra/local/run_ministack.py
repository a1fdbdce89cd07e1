"""Starts ministack, run by its own interpreter, with three things changed.

* It says how a WebSocket connection is reached. On AWS an event's `domainName` is a host, and `https://<domainName>/<stage>` takes posts
  to its connections. ministack's host resolves nowhere; what works is a path below its endpoint, so the event gets that, scheme included.
* It asks IAM what AWS asks. There the batch forms of SQS's operations are no actions of their own: `sqs:DeleteMessage` allows both.
* A function is ready 20 ms after it was made or changed, not 500: a deployment waits for that eighteen times.
"""

from __future__ import annotations

import os
from typing import Any

from ministack.app import main  # type: ignore[import-not-found]
from ministack.core import iam_actions  # type: ignore[import-not-found]
from ministack.services import apigateway, lambda_svc  # type: ignore[import-not-found]

_original_context = apigateway._ws_request_context
_original_action = iam_actions.extract_iam_action


def context_with_address(api_id: str, *arguments: Any) -> dict[str, Any]:
    context: dict[str, Any] = _original_context(api_id, *arguments)
    return context | {"domainName": f"http://{os.environ['BIND_HOST']}:{os.environ['GATEWAY_PORT']}/_aws/execute-api/{api_id}"}


def action_of_iam(service: str, *arguments: Any, **named: Any) -> Any:
    action = _original_action(service, *arguments, **named)
    return action.removesuffix("Batch") if service == "sqs" and action else action


if __name__ == "__main__":
    iam_actions.extract_iam_action = action_of_iam
    apigateway._ws_request_context = context_with_address
    lambda_svc._LAMBDA_STATE_TRANSITION_DELAY = 0.02
    main()
