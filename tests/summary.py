"""What tests have to tell beside passing, as lines at the end of pytest's report."""

from __future__ import annotations

from collections.abc import Callable

SUMMARY: dict[str, Callable[[], list[str]]] = {}  # by title; asked when all tests have ended
