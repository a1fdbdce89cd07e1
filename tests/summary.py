"""Summaries that tests add to the end of pytest's report."""

from __future__ import annotations

from collections.abc import Callable

SUMMARY: dict[str, Callable[[], list[str]]] = {}  # by title; called when all tests have ended
