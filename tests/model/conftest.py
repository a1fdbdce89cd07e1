"""Garbage collection after the model's tests.

Their many states would slow down the tests that follow.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _clean_up() -> Iterator[None]:
    yield
    gc.collect()
