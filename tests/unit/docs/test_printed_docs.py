"""The generated pages of `docs/` match the code."""

from __future__ import annotations

from dataclasses import fields

import pytest

from chalicelib.domain.failures import AttemptFailed, ReattachRefused
from chalicelib.entrypoints.http.server import ROUTES
from chalicelib.settings import Settings
from infra import print_docs


def test_the_printed_pages_are_up_to_date() -> None:
    """`python -m infra.print_docs` updates them."""
    assert [path.name for path in print_docs.stale()] == []


def test_every_setting_is_explained_on_the_settings_page() -> None:
    page = print_docs.settings_page()

    for field in fields(Settings):
        assert page.count(f"| `HEADRACE_{field.name.upper()}` |") >= 1
    assert set(print_docs.MEANINGS) <= {field.name for field in fields(Settings)}


def test_every_attempt_failure_is_listed_on_the_errors_page() -> None:
    page = print_docs.errors_page()

    for kind in {AttemptFailed, *AttemptFailed.__subclasses__()} - {ReattachRefused}:  # ends no attempt: the response is fetched instead
        assert f"| `{kind.code}` | {kind.error_class} |" in page


def test_every_route_is_listed_with_its_role() -> None:
    page = print_docs.routes_page()

    for route in ROUTES:
        assert f"| `{route.method} {route.path}` | {route.role.label if route.role else 'public'} |" in page


def test_missing_pages_are_stale_until_they_are_written(tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(print_docs, "DOCS", tmp_path)

    before, written, after = print_docs.stale(), print_docs.write(), print_docs.stale()

    assert [path.name for path in before] == ["errors.md", "settings.md", "routes.md", "job-types.md"]
    assert written == before
    assert after == []
