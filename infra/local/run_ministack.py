"""Start ministack with four patches. Its own interpreter runs this file.

* The `domainName` of WebSocket events. On AWS it is a host, and `https://<domainName>/<stage>`
  accepts posts to connections. The host that ministack sends does not resolve, so it is replaced by
  the path below the endpoint that works, with its scheme.
* The IAM action of SQS batch operations. On AWS they have none of their own: `sqs:DeleteMessage`
  allows both.
* The time until a function is ready, 20 ms instead of 500: a deployment waits eighteen times.
* The files of an environment that has ended are removed on a thread. ministack does nothing else
  meanwhile, which is half a second for each of some twenty environments where the disk is slow.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ministack.app import main  # type: ignore[import-not-found]
from ministack.core import iam_actions, lambda_runtime  # type: ignore[import-not-found]
from ministack.services import apigateway, lambda_svc  # type: ignore[import-not-found]

_original_context = apigateway._ws_request_context
_original_action = iam_actions.extract_iam_action
_removals = ThreadPoolExecutor(1)


def context_with_address(api_id: str, *arguments: Any) -> dict[str, Any]:
    context: dict[str, Any] = _original_context(api_id, *arguments)
    return context | {"domainName": f"http://{os.environ['BIND_HOST']}:{os.environ['GATEWAY_PORT']}/_aws/execute-api/{api_id}"}


def action_of_iam(service: str, *arguments: Any, **named: Any) -> Any:
    action = _original_action(service, *arguments, **named)
    return action.removesuffix("Batch") if service == "sqs" and action else action


def discard_later(worker: Any) -> None:
    folder, worker._tmpdir = worker._tmpdir, None
    if folder:
        _removals.submit(shutil.rmtree, folder, ignore_errors=True)


if __name__ == "__main__":
    iam_actions.extract_iam_action = action_of_iam
    apigateway._ws_request_context = context_with_address
    lambda_svc._LAMBDA_STATE_TRANSITION_DELAY = 0.02
    lambda_runtime.Worker._discard_tmpdir = discard_later
    main()
