"""The API key. Key management (several keys, quotas) will live here too."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mllm_embed_serving.errors import InvalidApiKey

OPEN_PATHS = frozenset({"/health"})
"""Paths that ask for no key: load balancers probe them."""


class ApiKeyMiddleware:
    """Refuses requests without the key, whatever their path, before anything of them is read.

    Args:
        app: what is guarded.
        api_key: the key.
    """

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._api_key = api_key.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise `InvalidApiKey`."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            self._check(Headers(scope=scope).get("authorization", ""))
        await self._app(scope, receive, send)

    def _check(self, header: str) -> None:
        scheme, _, key = header.partition(" ")
        if not key.strip() or scheme.lower() != "bearer":
            raise InvalidApiKey("this server asks for an API key: send the header `Authorization: Bearer YOUR_KEY`")
        if not hmac.compare_digest(key.strip().encode("latin-1", "replace"), self._api_key):
            raise InvalidApiKey("the API key is not the one that this server asks for")
