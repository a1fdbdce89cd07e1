from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib import bootstrap
from tests.kit.http import Api


@pytest.fixture
def api() -> Iterator[Api]:
    """The API of `app.py` on in-memory adapters."""
    made = Api()
    yield made
    bootstrap.override(None)
