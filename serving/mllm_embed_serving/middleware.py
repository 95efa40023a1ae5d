"""Around every request: an id, the counters, one place that answers errors, and the limit on the body."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm_embed_serving.errors import BodyTooLarge, find_answer
from mllm_embed_serving.metrics import Metrics
from mllm_embed_serving.responses import error_response

_LOG = logging.getLogger(__name__)
PROBED = frozenset({"/health", "/metrics"})
"""Paths that machines ask for every few seconds: their successes are logged at level debug only."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestMiddleware:
    """Outermost layer: gives the request an id, counts it, and turns whatever is raised inside into an answer.

    A caller's own `x-request-id` is kept if it is plain (letters, digits and `._:-`, at most 128), else one is made.

    Args:
        app: what answers.
        metrics: counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})["request_id"] = _request_id(scope)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:
                status = status or 499
                raise
            except Exception as error:
                _log(error, request_id, scope)
                if status:  # the answer is already on its way, so it can only be cut off
                    raise
                name_item = scope.get("state", {}).get("name_item")
                await error_response(error, request_id, scope["path"], name_item)(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - started
                self._metrics.record_request(_route(scope), status, seconds)
                level = logging.DEBUG if scope["path"] in PROBED else logging.INFO
                _LOG.log(
                    level, "%s %d %s %r %.0f ms", request_id, status, scope["method"], scope["path"], seconds * 1000
                )


class BodyLimitMiddleware:
    """Refuses long bodies: by their declared length before they are read, else as soon as they have grown too long.

    Args:
        app: what reads the body.
        max_bytes: most bytes of a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise `BodyTooLarge`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self._max_bytes:
            raise self._error(f"of {declared[:20]} bytes")
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._error("longer than that")
            return message

        await self._app(scope, receive_limited, send)

    def _error(self, actual: str) -> BodyTooLarge:
        return BodyTooLarge(f"the request body may have at most {self._max_bytes} bytes, but is {actual}")


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _route(scope: Scope) -> str:
    """Return the path template of the matched route."""
    return getattr(scope.get("route"), "path", "unmatched")


def _log(error: Exception, request_id: str, scope: Scope) -> None:
    """Log why a request is refused, and what is our own fault with its traceback."""
    if find_answer(error).status >= 500:
        _LOG.error("%s failed at %s %r", request_id, scope["method"], scope["path"], exc_info=error)
    else:
        _LOG.info("%s refused: %s", request_id, error)
