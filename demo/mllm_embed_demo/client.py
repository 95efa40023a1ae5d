"""A small HTTP client for OpenAI-compatible embeddings servers; everything the playground knows, it knows from here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from mllm_embed.errors import BackendUnavailable, MllmEmbedError
from mllm_embed.vectors import finish, from_base64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

WireItem = str | dict[str, str]
"""One entry of a request's `input`: a text, or `{"text": …, "image": data URI}` with either key left out."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ApiRefused(MllmEmbedError):
    """The API answered, but refused the request.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What the server tells about its model; plain OpenAI-compatible servers tell only the name.

    Attributes:
        name: model name in requests.
        backend: engine that runs it.
        dimensions: full vector width.
        offered: widths that it may be cut to, the full one included.
        fingerprint: equal means equal vectors.
    """

    name: str
    backend: str | None = None
    dimensions: int | None = None
    offered: tuple[int, ...] = ()
    fingerprint: str | None = None


class EmbeddingsClient:
    """Talks to one server; safe to use from several threads.

    Args:
        api_url: address of the server, with or without `/v1`.
        api_key: sent as a bearer token.
        model: model name; None takes the first that the server lists.
        timeout_s: longest wait for one answer, in seconds.
        transport: replaces the network, for tests.
    """

    def __init__(
        self,
        api_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout_s: float = 300.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.has_key = bool(api_key)
        self._model = model
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        proxied = httpx.URL(self.api_url).host not in _LOOPBACK  # a proxy cannot reach this machine's own loopback
        self._http = httpx.Client(headers=headers, timeout=timeout, transport=transport, trust_env=proxied)

    def __enter__(self) -> EmbeddingsClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def card(self) -> ModelCard:
        """Ask the server which model it serves.

        Raises:
            BackendUnavailable: no answer, or an answer that is none.
            ApiRefused: the server refuses (wrong key, no such model).
        """
        listed = [str(entry["id"]) for entry in self._request("GET", "/v1/models").get("data", [])]
        if self._model is None and not listed:
            raise BackendUnavailable(f"the API at {self.api_url} lists no model")
        name = listed[0] if self._model is None else self._model
        try:
            return _parse_card(name, self._request("GET", f"/v1/models/{name}"))
        except ApiRefused as refusal:
            if refusal.status == 404 and name in listed:  # vLLM and others list their models but have no card
                return ModelCard(name=name)
            raise

    def embed(
        self,
        model: str,
        items: Sequence[WireItem],
        *,
        instruction: str | None = None,
        dimensions: int | None = None,
    ) -> NDArray[np.float32]:
        """Embed items, one vector each, in order.

        Returns:
            float32 unit vectors, shape [N, D].

        Raises:
            BackendUnavailable: no answer, or an answer that is none.
            ApiRefused: the server refuses the request; its own message is kept.
        """
        body = request_body(model, items, instruction=instruction, dimensions=dimensions)
        answer = self._request("POST", "/v1/embeddings", {**body, "encoding_format": "base64"})
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            raw = np.stack([_vector(row["embedding"]) for row in rows])
        except (KeyError, TypeError, ValueError) as error:
            raise BackendUnavailable(f"the API at {self.api_url} sent no readable embeddings") from error
        if len(raw) != len(items):
            raise BackendUnavailable(f"the API sent {len(raw)} vectors for {len(items)} inputs")
        return finish(raw)  # not every server normalises

    def words(self, model: str, item: WireItem, *, instruction: str, most: int) -> dict[str, float]:
        """Return the words that the model reads in an item and their weights, the heaviest first; none if it has none.

        Args:
            model: its name.
            item: as it is embedded.
            instruction: under which it is embedded.
            most: how many words.

        Raises:
            BackendUnavailable: no answer, or an answer that is none.
            ApiRefused: the server refuses, as one does whose model gives no words.
        """
        body = request_body(model, [item], instruction=instruction)
        answer = self._request("POST", "/v1/embeddings", {**body, "outputs": ["lexical"], "lexical_top_k": most})
        try:
            words = answer["data"][0].get("lexical") or {}  # servers that do not know the field ignore it
            return {str(word): float(weight) for word, weight in words.items()}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BackendUnavailable(f"the API at {self.api_url} sent no readable words") from error

    def wait(self, patience_s: float, tell: Callable[[float], None], pause_s: float = 1.0) -> ModelCard:
        """Wait until the server answers, and return its card.

        Args:
            patience_s: give up after so many seconds.
            tell: called with the seconds waited so far, before every further try.
            pause_s: seconds between two tries.

        Raises:
            BackendUnavailable: not reachable in time.
            ApiRefused: reachable, but it refuses (wrong key, no such model).
        """
        start = time.monotonic()
        while True:
            try:
                return self.card()
            except BackendUnavailable:
                waited = time.monotonic() - start
                if waited >= patience_s:
                    raise
                tell(waited)
                time.sleep(pause_s)

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, self.api_url + path, json=body)
        except httpx.TimeoutException as error:
            raise BackendUnavailable(f"the API at {self.api_url} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackendUnavailable(
                f"the API at {self.api_url} cannot be reached; `mllm-embed serve` starts one"
            ) from error
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        message = _error_message(answer) or f"HTTP {response.status_code}"
        if response.status_code >= 500 or response.is_success:
            raise BackendUnavailable(f"the API at {self.api_url} failed: {message}")
        raise ApiRefused(message, response.status_code)


def request_body(
    model: str, items: Sequence[WireItem], *, instruction: str | None = None, dimensions: int | None = None
) -> dict[str, Any]:
    """Return the JSON body of `POST /v1/embeddings`; keys that are not set are left out."""
    body: dict[str, Any] = {"model": model, "input": list(items)}
    if instruction is not None:
        body["instruction"] = instruction
    if dimensions is not None:
        body["dimensions"] = dimensions
    return body


def _vector(embedding: str | list[float]) -> NDArray[np.float32]:
    """Read one vector; servers that do not know base64 send numbers."""
    return from_base64(embedding) if isinstance(embedding, str) else np.asarray(embedding, dtype=np.float32)


def _parse_card(name: str, raw: dict[str, Any]) -> ModelCard:
    width = raw.get("dimensions")
    dimensions = width if isinstance(width, int) else None
    narrower = raw.get("matryoshka_dimensions") or ()
    offered = {int(value) for value in narrower} | ({dimensions} if dimensions else set())
    return ModelCard(
        name=name,
        backend=_text(raw.get("backend")),
        dimensions=dimensions,
        offered=tuple(sorted(offered, reverse=True)),
        fingerprint=_text(raw.get("fingerprint")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _error_message(answer: object) -> str | None:
    """Find the message in an OpenAI error object, or in FastAPI's plain one."""
    if not isinstance(answer, dict):
        return None
    error = answer.get("error", answer.get("detail"))
    return _text(error.get("message") if isinstance(error, dict) else error)
