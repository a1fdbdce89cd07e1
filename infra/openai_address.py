"""Check the address of OpenAI, or of a provider in its place, before it is stored."""

from __future__ import annotations

from chalicelib.adapters.openai.address import problem_of
from chalicelib.domain.failures import AddressInvalid

TIMEOUT = 5.0  # seconds


class AddressRefused(RuntimeError):
    """The address cannot be that of a Responses API; the message says why."""


def check_address(base_url: str | None) -> None:
    """Check how an address is written.

    Raises:
        AddressRefused: it cannot be that of an API.
    """
    if base_url and (problem := problem_of(base_url)):
        raise AddressRefused(f"OPENAI_BASE_URL: {problem}")


def check_api(base_url: str | None, key: str) -> str | None:
    """Ask an address of one's own with an empty request, which is refused and costs nothing.

    Returns: a sentence if the address could not be asked from this machine; None: it has the API.

    Raises:
        AddressRefused: there is no Responses API.
    """
    import httpx2

    from chalicelib.adapters.openai.errors import from_response, no_api, redirected
    from chalicelib.adapters.openai.redaction import redact_message

    check_address(base_url)
    if not base_url:
        return None
    url = base_url.rstrip("/") + "/responses"
    try:
        answer = httpx2.post(url, json={}, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT, follow_redirects=True)
    except (httpx2.HTTPError, httpx2.InvalidURL, ImportError, ValueError) as exc:
        return f"{base_url} could not be asked from here, so it was not checked: {redact_message(str(exc)) or type(exc).__name__}"
    is_page = answer.headers.get("content-type", "").startswith("text/html")
    if (elsewhere := redirected(answer)) is not None:
        raise AddressRefused(f"OPENAI_BASE_URL: {elsewhere.message}")
    if answer.is_success and not is_page:
        return None
    failure = no_api(url, answer.text) if answer.is_success else from_response(answer.status_code, answer.headers, answer.text, url)
    if isinstance(failure, AddressInvalid):
        raise AddressRefused(f"OPENAI_BASE_URL: {failure.message}")
    return None
