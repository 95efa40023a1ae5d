"""What can be measured over HTTP: any OpenAI-compatible embeddings endpoint."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mllm_embed.errors import BackendUnavailable, InvalidInput
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.media import MediaPolicy, data_uri, load_sync
from mllm_embed.types import Content, EmbedInput, Image, Text
from mllm_embed.vectors import finish, from_base64

Dialect = Literal["mllm-embed", "vllm", "openai"]
"""How items are written: `mllm-embed` as lists of content parts with one instruction, `vllm` as one conversation per
request with the instruction as system message, `openai` as bare strings, which carry neither pictures nor instructions.
"""
DIALECTS: tuple[Dialect, ...] = ("mllm-embed", "vllm", "openai")
_BATCH = 32
_CLIENTS = 4
_TIMEOUT_S = 600.0


class EndpointEncoder:
    """Measures whatever answers `POST /v1/embeddings`.

    Args:
        url: address of the server, with or without `/v1`.
        model: name in requests; None takes the first that the server lists.
        api_key: sent as a bearer token.
        dialect: None takes `mllm-embed` where the server says which weights it runs, else `openai`.

    Raises:
        BackendUnavailable: no answer, or one that is none.
        EvaluationError: the server refuses, or lists no model.
    """

    def __init__(
        self, url: str, *, model: str | None = None, api_key: str | None = None, dialect: Dialect | None = None
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1").rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(headers=headers, timeout=httpx.Timeout(_TIMEOUT_S, connect=10.0))
        self._policy = MediaPolicy.local()
        try:
            card = self._card(model)
        except BaseException:
            self.close()
            raise
        self._card_values = card
        self._model = str(card["id"])
        self._dialect: Dialect = dialect or ("mllm-embed" if "fingerprint" in card else "openai")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> EndpointEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self) -> dict[str, Any]:
        """Return the model's name, its fingerprint (address and name where the server tells none) and the dialect."""
        told: dict[str, Any] = {
            key: self._card_values[key] for key in ("backend", "dimensions") if key in self._card_values
        }
        fingerprint = self._card_values.get("fingerprint") or f"{self._url} {self._model}"
        return {"name": self._model, "fingerprint": fingerprint, "dialect": self._dialect, **told}

    def accepts(self, item: EmbedInput) -> bool:
        """Texts; pictures too, unless the dialect has no way to write them."""
        return self._dialect != "openai" or all(isinstance(content, Text) for content in item.content)

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        """Embed over HTTP, several requests at once.

        Raises:
            BackendUnavailable: the server fails or does not answer.
            EvaluationError: it refuses a request; its own message is kept.
        """
        batches = self._batches(items)
        with ThreadPoolExecutor(_CLIENTS) as pool:
            answers = list(pool.map(lambda batch: self._embed([items[place] for place in batch]), batches))
        places = [place for batch in batches for place in batch]
        vectors = np.empty((len(items), answers[0].shape[1]), dtype=np.float32)
        vectors[places] = np.concatenate(answers)
        return finish(vectors)

    def _batches(self, items: Sequence[EmbedInput]) -> list[list[int]]:
        """Places of items that go into one request: those of one instruction, or each alone."""
        if self._dialect == "vllm":
            return [[place] for place in range(len(items))]
        by_instruction: dict[str | None, list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            by_instruction[item.instruction if self._dialect == "mllm-embed" else None].append(place)
        return [
            places[start : start + _BATCH]
            for places in by_instruction.values()
            for start in range(0, len(places), _BATCH)
        ]

    def _embed(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        write: dict[Dialect, Callable[[Sequence[EmbedInput]], dict[str, Any]]] = {
            "mllm-embed": self._as_parts,
            "vllm": self._as_messages,
            "openai": _as_strings,
        }
        body = {"model": self._model, "encoding_format": "base64", **write[self._dialect](items)}
        answer = self._request("POST", "/v1/embeddings", body)
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = np.stack([_vector(row["embedding"]) for row in rows])
        except (KeyError, TypeError, ValueError) as error:
            raise BackendUnavailable(f"the API at {self._url} sent no readable embeddings") from error
        if len(vectors) != len(items):
            raise BackendUnavailable(f"the API sent {len(vectors)} vectors for {len(items)} inputs")
        return vectors

    def _as_parts(self, items: Sequence[EmbedInput]) -> dict[str, Any]:
        body: dict[str, Any] = {"input": [self._parts(item) for item in items]}
        return body if items[0].instruction is None else {**body, "instruction": items[0].instruction}

    def _as_messages(self, items: Sequence[EmbedInput]) -> dict[str, Any]:
        (item,) = items
        system = [] if item.instruction is None else [{"role": "system", "content": item.instruction}]
        return {"messages": [*system, {"role": "user", "content": self._parts(item)}]}

    def _parts(self, item: EmbedInput) -> list[dict[str, Any]]:
        return [
            {"type": "text", "text": content.text}
            if isinstance(content, Text)
            else {"type": "image_url", "image_url": {"url": self._uri(content)}}
            for content in item.content
        ]

    def _uri(self, image: Content) -> str:
        """Return a picture as a data URI, pixels unchanged; transparency is the server's business."""
        if not isinstance(image, Image):
            raise InvalidInput(f"texts and pictures can be sent to an API, but an input holds a {type(image).__name__}")
        if isinstance(image.source, bytes):
            return data_uri(PIL.Image.open(io.BytesIO(image.source)))
        return data_uri(load_sync(image, self._policy))

    def _card(self, model: str | None) -> dict[str, Any]:
        listed = [str(entry["id"]) for entry in self._request("GET", "/v1/models").get("data", [])]
        name = model or (listed[0] if listed else None)
        if name is None:
            raise EvaluationError(f"the API at {self._url} lists no model; name one with --model")
        try:
            return {**self._request("GET", f"/v1/models/{name}"), "id": name}
        except EvaluationError:
            if name in listed:  # not every server has a card for each model
                return {"id": name}
            raise

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, self._url + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise BackendUnavailable(f"the API at {self._url} cannot be reached: {reason}") from None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        reason = f"the API at {self._url} answers {response.status_code}: {_message(answer)}"
        if response.status_code >= 500 or response.is_success:
            raise BackendUnavailable(reason)
        raise EvaluationError(reason)


def _as_strings(items: Sequence[EmbedInput]) -> dict[str, Any]:
    texts = ["".join(content.text for content in item.content if isinstance(content, Text)) for item in items]
    return {"input": texts}


def _vector(embedding: str | list[float]) -> NDArray[np.float32]:
    """Read one vector; servers that do not know base64 send numbers."""
    return from_base64(embedding) if isinstance(embedding, str) else np.asarray(embedding, dtype=np.float32)


def _message(answer: object) -> str:
    """Find the message in an OpenAI error object, or in FastAPI's plain one."""
    if not isinstance(answer, dict):
        return "no JSON"
    error = answer.get("error", answer.get("detail"))
    return str(error.get("message") if isinstance(error, dict) else error)
