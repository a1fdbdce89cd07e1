"""Answer hostile requests through `app.py`, each in a process of its own with as much memory as a function has.

Run as a module; it prints a line of JSON for each request.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.kit.cpu import unit_of_work
from tests.kit.hostile_bodies import BODIES, Hostile
from tests.kit.hostile_files import FILES, HostileFile
from tests.kit.http import Api
from tests.kit.work import work

MEMORY_BYTES = 512 * 1024 * 1024  # of an API function and of a worker


def main() -> None:
    api = Api()
    api.submit()  # imports what a request needs, and compiles the schemas, as a warm function has
    work(api)
    api.call("POST", "/batches", raw="prompt\nx\n", content_type="text/csv")
    for name, hostile in BODIES.items():
        _measure(name, lambda hostile=hostile: _send(api, hostile))  # type: ignore[misc]
    for name, file in FILES.items():
        _measure(f"upload of {name}", lambda file=file: _send_upload(api, file))  # type: ignore[misc]
        _measure(f"import of {name}", lambda file=file: _import_upload(api, file))  # type: ignore[misc]


def _send(api: Api, hostile: Hostile) -> tuple[int, str]:
    reply = api.call("POST", hostile.path, raw=hostile.make_body(), content_type=hostile.content_type)
    return reply.status, reply.text


def _send_upload(api: Api, file: HostileFile) -> tuple[int, str]:
    stored = api.container.uploads
    stored.open = lambda *_: file.opened()  # type: ignore[method-assign]
    reply = api.call("POST", "/batches", {"upload_id": "upload_00000000000000000000000000"})
    return reply.status, reply.text


def _import_upload(api: Api, file: HostileFile) -> tuple[int, str]:
    """Read the upload in a worker. An import that fails counts as refused."""
    stored = api.container.uploads
    stored.open = lambda *_: file.opened()  # type: ignore[method-assign]
    job_id = api.submit(prompt=None, job_type="csv_import", input={"upload_id": "upload_00000000000000000000000000"})
    work(api)
    record = api.call("GET", f"/jobs/{job_id}").json
    refused = record["error"] is not None and record["error"]["code"] == "request_invalid"
    return (400 if refused else 202), json.dumps(record)


def _measure(name: str, send: Callable[[], tuple[int, str]]) -> None:
    """Fork, so that neither memory nor caches of one request matter to the next."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            _write({"name": name, "status": 0, "answer": f"the process died: {status}"})
        return
    gc.collect()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    began = time.process_time()
    status, answer = send()
    cpu = time.process_time() - began
    line: dict[str, Any] = {
        "name": name,
        "status": status,
        "answer": answer[:400_000],
        "cpu": cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "unit": unit_of_work(),
    }
    _write(line)
    os._exit(0)


def _write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
