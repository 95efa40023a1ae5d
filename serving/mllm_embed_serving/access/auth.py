"""The outer gate: who asks, and whether their key may ask now; before anything of the request is read."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mllm_embed_serving.access.admission import Admission
from mllm_embed_serving.access.callers import Callers
from mllm_embed_serving.errors import InvalidApiKey

OPEN_PATHS = frozenset({"/health"})
"""Paths that ask for no key: load balancers probe them."""
LIMITED = ("/v1/", "/v2/")
"""Beginnings of the paths that count towards a key's rates."""


class AccessMiddleware:
    """Refuses requests without a key, whatever their path, and those beyond the key's limits.

    Who asks is put into the scope's state as `caller`.

    Args:
        app: what is guarded.
        callers: the keys.
        admission: the queue.
    """

    def __init__(self, app: ASGIApp, callers: Callers, admission: Admission) -> None:
        self._app = app
        self._callers = callers
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on.

        Raises:
            InvalidApiKey: no key, or one that nobody has.
            RateLimited: the key has used up what it may ask for, or the server has no room.
            Draining: the server is about to stop.
        """
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        key = _bearer(Headers(scope=scope).get("authorization", ""))
        caller = self._callers.find(key)
        if caller is None:
            if not key:
                raise InvalidApiKey("this server asks for an API key: send the header `Authorization: Bearer YOUR_KEY`")
            raise InvalidApiKey("the API key is not one that this server knows")
        scope.setdefault("state", {})["caller"] = caller
        if not scope["path"].startswith(LIMITED):
            await self._app(scope, receive, send)
            return
        with self._admission.request(), caller.request():
            await self._app(scope, receive, send)


def _bearer(header: str) -> str:
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
