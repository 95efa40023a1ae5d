"""Around every request: an id, the counters, one place that answers errors, and the limit on the body."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm_embed.errors import BackendUnavailable
from mllm_embed_serving.errors import BodyTooLarge, SlowBody, find_answer
from mllm_embed_serving.logs import log_access
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
                spent = str(round((time.perf_counter() - started) * 1000))
                headers["x-processing-ms"] = headers["openai-processing-ms"] = spent
                if (caller := scope["state"].get("caller")) is not None:
                    headers.update(caller.headers())
            await send(message)

        headers = Headers(scope=scope)
        with self._metrics.in_flight.track_inprogress(), self._metrics.tracer.request(scope["method"], headers):
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
                self._report(scope, status, time.perf_counter() - started)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        """Count, log and trace one answered request."""
        route, state = _route(scope), scope["state"]
        self._metrics.record_request(route, status, seconds)
        fields = {
            "request_id": state["request_id"],
            "key": state["caller"].name if "caller" in state else "-",
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000),
            **state.get("counts", {}),
        }
        log_access(logging.DEBUG if scope["path"] in PROBED else logging.INFO, fields)
        self._metrics.tracer.describe(**fields)


class BodyLimitMiddleware:
    """Refuses long bodies and slow ones.

    A long one is refused by its declared length before it is read, else as soon as it has grown too long.

    Args:
        app: what reads the body.
        max_bytes: most bytes of a body.
        larger: other limits, by path.
        timeout_s: seconds in which the whole body must arrive.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int], timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on.

        Raises:
            BodyTooLarge: more bytes than the limit.
            SlowBody: it does not arrive in time.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._max_bytes)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise _too_long(limit, f"of {declared[:20]} bytes")
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        received, complete = 0, False

        async def receive_limited() -> Message:
            nonlocal received, complete
            if complete:  # what is still to come is the news that the caller has hung up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise SlowBody(f"the request body must arrive within {self._timeout_s:g} s") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise _too_long(limit, "longer than that")
            return message

        await self._app(scope, receive_limited, send)


def _too_long(limit: int, actual: str) -> BodyTooLarge:
    return BodyTooLarge(f"the request body may have at most {limit} bytes, but is {actual}")


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _route(scope: Scope) -> str:
    """Return the path template of the matched route."""
    return getattr(scope.get("route"), "path", "unmatched")


def _log(error: Exception, request_id: str, scope: Scope) -> None:
    """Log why a request is refused, and what is our own fault with its traceback."""
    if isinstance(error, BackendUnavailable):  # the engine is down, or the server stops: known, and said elsewhere
        _LOG.warning("%s refused: %s", request_id, error)
    elif find_answer(error).status >= 500:
        _LOG.error("%s failed at %s %r", request_id, scope["method"], scope["path"], exc_info=error)
    else:
        _LOG.info("%s refused: %s", request_id, error)
