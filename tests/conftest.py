"""What every test gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.time import JumpingLoop


@pytest.fixture(autouse=True)
def _close_loops() -> Iterator[None]:
    yield
    while JumpingLoop.made:
        JumpingLoop.made.pop().close()
