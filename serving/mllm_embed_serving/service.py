"""What the routes share: the embedder, the settings, the counters, and what is derived from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from starlette.requests import Request

import mllm_embed
from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendUnavailable
from mllm_embed.types import Embedding
from mllm_embed_serving import fields
from mllm_embed_serving.access.admission import Admission
from mllm_embed_serving.access.callers import Caller, Callers
from mllm_embed_serving.content import ItemReader
from mllm_embed_serving.disconnects import unless_disconnected
from mllm_embed_serving.errors import UnknownModel
from mllm_embed_serving.fields import shown
from mllm_embed_serving.metrics import Metrics
from mllm_embed_serving.pipeline.cache import ResultCache
from mllm_embed_serving.pipeline.disk_store import DiskStore
from mllm_embed_serving.pipeline.front import Front, Outcome
from mllm_embed_serving.schemas.common import EmbeddingRequest, EncodedRequest, read_json
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.token_ids import decoder
from mllm_embed_serving.tracing import Tracer


class Service:
    """One served model.

    Args:
        embedder: the model.
        settings: limits and switches.
        tracer: follows single requests; None follows none.

    Attributes:
        embedder: the model.
        settings: limits and switches.
        metrics: counters.
        callers: who may ask.
        admission: the queue.
        reader: reads items of requests for this model.
        front: embeds their items.
        batches: files and batches, if they are offered.
    """

    def __init__(self, embedder: Embedder, settings: ServerSettings, tracer: Tracer | None = None) -> None:
        self.embedder = embedder
        self.settings = settings
        self.metrics = Metrics(tracer)
        self.metrics.follow_engine(self._is_healthy, lambda: getattr(embedder.backend, "restarts", 0))
        self.callers = Callers(settings.api_keys, settings.limits)
        self.admission = Admission(
            max_requests=settings.max_queued_requests,
            max_items=settings.max_queued_items,
            deadline_s=settings.request_timeout_s,
            gauge=self.metrics.queued,
        )
        self.front = Front(embedder, settings.media_policy(), _cache(embedder, settings, self.metrics), self.metrics)
        self.reader = ItemReader(
            decode=decoder(settings.token_ids, embedder.decode),
            max_text_chars=settings.max_text_chars,
            max_frames=settings.max_video_frames,
        )

    async def read(self, request: Request) -> tuple[dict[str, Any], str]:
        """Return a request's JSON body, and the model that it names, which is the served one.

        Raises:
            InvalidJson: the body is no JSON object.
            InvalidParameter: there is no model in it.
            UnknownModel: it is another.
        """
        body = read_json(await request.body())
        return body, self.named_model(body)

    def named_model(self, body: dict[str, Any]) -> str:
        """Return the model that a body names.

        Raises:
            InvalidParameter: there is no model in it.
            UnknownModel: it is not the served one.
        """
        model = fields.text(body.get("model"), "model", self.settings.max_text_chars)
        self.check_model(model)
        return model

    def check_model(self, name: str) -> None:
        """Raise `UnknownModel` unless `name` is the served model."""
        if name != self.embedder.name:
            raise UnknownModel(
                f"the model {shown(name)} does not exist here; this server serves {self.embedder.name!r}", param="model"
            )

    async def embed(self, request: Request, wanted: EmbeddingRequest) -> list[Embedding]:
        """Embed what a request asks for, unless its caller hangs up, and count it.

        Raises:
            QueueFull: there is no room for so many items.
            DeadlineExceeded: it takes too long.
            InputError: an input cannot be embedded; its `index` says which.
            ClientGone: the caller hung up first.
        """
        async with self.admission.items(len(wanted.inputs)):
            embeddings = await unless_disconnected(request, self.front.embed(wanted, caller_of(request).scope))
        self._account(request, embeddings, wanted)
        return embeddings

    async def outcomes(self, request: Request, asked: EncodedRequest) -> Sequence[Outcome]:
        """Like `embed`; if the request is `partial`, an input's error stands in its place instead of being raised."""
        if not asked.partial:
            return await self.embed(request, asked.wanted)
        scope = caller_of(request).scope
        async with self.admission.items(len(asked.wanted.inputs)):
            outcomes = await unless_disconnected(request, self.front.embed_each(asked.wanted, scope))
        self._account(request, [outcome for outcome in outcomes if isinstance(outcome, Embedding)], asked.wanted)
        return outcomes

    def check_health(self) -> None:
        """Raise `BackendUnavailable` if the engine cannot take work now, or the server is about to stop."""
        self.admission.check()
        self.embedder.check_health()

    def _is_healthy(self) -> bool:
        try:
            self.embedder.check_health()
        except BackendUnavailable:
            return False
        return True

    def _account(self, request: Request, embeddings: Sequence[Embedding], wanted: EmbeddingRequest) -> None:
        """Count what was embedded, for the log too, and charge the caller for it."""
        tokens = sum(embedding.tokens for embedding in embeddings)
        caller_of(request).pay(tokens)
        request.state.counts = {"items": len(embeddings), "tokens": tokens, "images": wanted.images}
        self.metrics.record_embeddings(items=len(embeddings), tokens=tokens, images=wanted.images)

    async def model_card(self) -> dict[str, Any]:
        """Return OpenAI's model object, with everything that decides which vector an input gets."""
        recipe = self.embedder.model_dir.recipe
        return {
            "id": self.embedder.name,
            "object": "model",
            "created": self._created,
            "owned_by": "mllm-embed",
            "backend": self.embedder.backend.name,
            "family": recipe.family,
            "dimensions": recipe.dimensions,
            "matryoshka_dimensions": list(recipe.matryoshka_dimensions),
            "max_tokens": recipe.max_tokens,
            "max_image_pixels": recipe.max_pixels,
            "template": recipe.template,
            "template_version": recipe.template_version,
            "pooling": recipe.pooling,
            "normalized": True,
            "fingerprint": await asyncio.to_thread(lambda: self.embedder.model_dir.fingerprint),
        }

    @cached_property
    def _created(self) -> int:
        """When the model was written, in Unix seconds."""
        return int((self.embedder.model_dir.weights / "config.json").stat().st_mtime)


def _cache(embedder: Embedder, settings: ServerSettings, metrics: Metrics) -> ResultCache:
    """Make the cache; one on disk outlives this model, this engine and this version, and must tell them apart."""
    size = settings.cache_bytes or 0
    if settings.cache_folder is None:
        return ResultCache("", size, None, metrics)
    model, engine = embedder.model_dir.fingerprint, embedder.backend.name
    variant = [model, engine, settings.precision, embedder.region_encoder.name, mllm_embed.__version__]
    return ResultCache("/".join(variant), size, DiskStore(settings.cache_folder, settings.cache_disk_bytes), metrics)


def caller_of(request: Request) -> Caller:
    """Return who asks: what is computed for one caller is never handed to another."""
    caller: Caller = request.state.caller
    return caller
