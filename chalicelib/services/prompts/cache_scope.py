"""Keep the prompts of tenants apart in the provider's prompt cache.

OpenAI caches the beginnings of long prompts for a whole organisation, and a response says how many
of its input tokens were cached. So with one organisation for all tenants, a tenant could find out
whether another one has sent the same beginning.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from chalicelib.ports import ModelRequest

KEY_LENGTH = 32  # OpenAI allows 64


def scope_to_tenant(request: ModelRequest, tenant: str, *, isolated: bool) -> ModelRequest:
    """Return the request with a cache key of the tenant, which is made of the caller's own key too.

    OpenAI looks for cached prompts on the machines that the key leads to. That makes a hit on
    another tenant's prompt unlikely, but does not exclude it.

    Args:
        isolated: also begin the instructions with a line that no other tenant's have, so that no
            beginning is equal. It costs some fifteen input tokens a request.
    """
    own = str(request.extra.get("prompt_cache_key") or "")
    scoped = replace(request, extra={**request.extra, "prompt_cache_key": _hash("key", tenant, own)})
    if not isolated:
        return scoped
    line = f"(Scope {_hash('line', tenant, '')[:12]}; of no meaning for the task.)"
    return replace(scoped, instructions="\n\n".join(part for part in (line, request.instructions) if part))


def _hash(use: str, tenant: str, own: str) -> str:
    return sha256(f"{use}\0{tenant}\0{own}".encode("utf-8", "surrogatepass")).hexdigest()[:KEY_LENGTH]
