"""Errors of requests, and the one table that turns every error into an HTTP answer in OpenAI's shape.

    MllmEmbedError
    └── RequestError                  the HTTP request is at fault, whatever its input
        ├── InvalidJson               the body is not JSON
        ├── InvalidParameter          a field is missing, of a wrong type, or out of range
        ├── InvalidApiKey             no key, or a wrong one
        ├── PermissionDenied          a key that may not do this
        ├── UnknownModel              a model that this server does not serve
        ├── UnknownRoute              no such path
        ├── UnknownObject             no such file or batch
        ├── AdapterRefused            an adapter that cannot be run on the served model
        ├── MethodNotAllowed          a path that does not take this method
        ├── BodyTooLarge              more bytes than the limit
        ├── SlowBody                  a body that does not arrive in time
        ├── TooManyTokens             more tokens in all its texts than a request may hold
        ├── RateLimited               the key has used up what it may ask for
        ├── QueueFull                 more is under way than the server takes at once
        └── ClientGone                the caller hung up; nobody reads the answer

    BackendUnavailable
    └── Draining                      the server is about to stop
    BackendError
    └── DeadlineExceeded              the engine took longer than a request may

The tree of `mllm_embed.errors` is mapped by the same table. An answer of status 500 and above has a fixed text: what
went wrong inside is in the log, under the request's id.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from mllm_embed import errors as library
from mllm_embed.errors import BackendError, BackendUnavailable, InputError, MllmEmbedError


class RequestError(MllmEmbedError):
    """The HTTP request is at fault.

    Attributes:
        param: path of the offending field, such as `input[3].image`, where there is one.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidJson(RequestError):
    """The body is not a JSON object."""


class InvalidParameter(RequestError):
    """A field is missing, of a wrong type, or out of range; the message is prefixed by its path."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(f"{param}: {message}", param=param)


class InvalidApiKey(RequestError):
    """No API key, or a wrong one."""


class PermissionDenied(RequestError):
    """A key that is known, but may not do this."""


class UnknownModel(RequestError):
    """A model that this server does not serve."""


class UnknownRoute(RequestError):
    """No such path."""


class UnknownObject(RequestError):
    """A file or a batch that does not exist, or is somebody else's."""


class AdapterRefused(RequestError):
    """An adapter that is not there, is damaged, or was made for another model."""


class MethodNotAllowed(RequestError):
    """A path that does not take this method."""


class BodyTooLarge(RequestError):
    """A body of more bytes than the limit."""


class TooManyTokens(RequestError):
    """The texts of a request hold more tokens together than the limit."""


class SlowBody(RequestError):
    """A body that did not arrive in time."""


class RateLimited(RequestError):
    """The key has used up what it may ask for.

    Attributes:
        retry_after_s: seconds until it may ask again.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(RateLimited):
    """More is under way than the server takes at once."""


class Draining(BackendUnavailable):
    """The server is about to stop, and takes no new work."""


class DeadlineExceeded(BackendError):
    """The engine took longer than a request may."""


class ClientGone(RequestError):
    """The caller hung up before the answer; it is counted, but nobody reads it."""


class Answer(NamedTuple):
    """How an error class is answered: status, OpenAI's error type and code, and further headers."""

    status: int
    type: str
    code: str
    headers: tuple[tuple[str, str], ...] = ()


_INVALID = "invalid_request_error"
_SERVER = "server_error"
_RATE = "rate_limit_error"

ANSWERS: dict[type[BaseException], Answer] = {
    RequestError: Answer(400, _INVALID, "invalid_request"),
    InvalidJson: Answer(400, _INVALID, "invalid_json"),
    InvalidParameter: Answer(400, _INVALID, "invalid_parameter"),
    InvalidApiKey: Answer(401, _INVALID, "invalid_api_key", (("www-authenticate", "Bearer"),)),
    PermissionDenied: Answer(403, _INVALID, "permission_denied"),
    UnknownModel: Answer(404, _INVALID, "model_not_found"),
    UnknownRoute: Answer(404, _INVALID, "unknown_url"),
    UnknownObject: Answer(404, _INVALID, "not_found"),
    AdapterRefused: Answer(400, _INVALID, "invalid_adapter"),
    MethodNotAllowed: Answer(405, _INVALID, "method_not_allowed"),
    BodyTooLarge: Answer(413, _INVALID, "request_too_large"),
    TooManyTokens: Answer(400, "max_tokens_per_request", "max_tokens_per_request"),  # both as OpenAI has them
    SlowBody: Answer(408, _INVALID, "request_timeout", (("connection", "close"),)),
    RateLimited: Answer(429, _RATE, "rate_limit_exceeded"),
    QueueFull: Answer(429, _RATE, "queue_full"),
    ClientGone: Answer(499, _INVALID, "client_closed_request"),
    library.InputError: Answer(400, _INVALID, "invalid_input"),
    library.InvalidInput: Answer(400, _INVALID, "invalid_input"),
    library.InvalidMedia: Answer(400, _INVALID, "invalid_image"),
    library.MediaTooLarge: Answer(400, _INVALID, "image_too_large"),
    library.MediaNotAllowed: Answer(400, _INVALID, "media_not_allowed"),
    library.MediaFetchError: Answer(400, _INVALID, "media_fetch_failed"),
    library.InputTooLong: Answer(400, _INVALID, "context_length_exceeded"),
    library.InvalidDimensions: Answer(400, _INVALID, "invalid_dimensions"),
    library.ModelError: Answer(500, _SERVER, "model_error"),
    library.ModelNotFound: Answer(500, _SERVER, "model_error"),
    library.UnknownFamily: Answer(500, _SERVER, "model_error"),
    library.IncompatibleCheckpoint: Answer(500, _SERVER, "model_error"),
    library.BackendError: Answer(500, _SERVER, "engine_error"),
    library.BackendUnavailable: Answer(503, _SERVER, "engine_unavailable", (("retry-after", "5"),)),
    library.Overloaded: Answer(429, _RATE, "engine_overloaded", (("retry-after", "1"),)),
    Draining: Answer(503, _SERVER, "server_stopping", (("retry-after", "1"), ("connection", "close"))),
    DeadlineExceeded: Answer(504, _SERVER, "deadline_exceeded"),
    Exception: Answer(500, _SERVER, "internal_error"),
}
"""Every error class and its answer; a class that is not here takes that of its nearest ancestor."""

FIXED_TEXTS = {
    "model_error": "The model cannot be used.",
    "engine_error": "The engine failed on this request.",
    "engine_unavailable": "The engine is not available.",
    "server_stopping": "The server is about to stop: send the request again.",
    "deadline_exceeded": "The request took longer than this server lets one take.",
    "internal_error": "The server had an error while processing the request.",
}
"""What callers are told where the fault is ours, by code; the request id is added."""

NameItem = Callable[[int], str]
"""Turns an item's position into its path in the request, such as `input[3]`."""


def find_answer(error: BaseException) -> Answer:
    """Return the answer of the nearest mapped class along the error's MRO."""
    return next(ANSWERS[base] for base in type(error).__mro__ if base in ANSWERS)


def answer_headers(error: BaseException) -> dict[str, str]:
    """Return the further headers of an error's answer; whoever asked too much is told when to come back."""
    headers = dict(find_answer(error).headers)
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return headers


def error_body(error: BaseException, request_id: str, name_item: NameItem | None = None) -> dict[str, Any]:
    """Return the JSON answer of an error: `{"error": {message, type, param, code}}`, always with all four keys."""
    answer = find_answer(error)
    param = _param(error, name_item)
    if answer.status >= 500:
        message = f"{FIXED_TEXTS[answer.code]} The server's log has the reason under request id {request_id}."
        param = None
    elif isinstance(error, InputError):
        message = error.message if param is None else f"{param}: {error.message}"
    else:
        message = str(error)
    return {"error": {"message": message, "type": answer.type, "param": param, "code": answer.code}}


def _param(error: BaseException, name_item: NameItem | None) -> str | None:
    if isinstance(error, RequestError):
        return error.param
    if isinstance(error, library.InvalidDimensions):
        return "dimensions"
    if isinstance(error, InputError) and error.index is not None:
        return f"input[{error.index}]" if name_item is None else name_item(error.index)
    return None
