"""What the routes share: the models, the settings, the counters, and what is derived from them."""

from __future__ import annotations

from collections.abc import Sequence
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
from mllm_embed_serving.metrics import Metrics
from mllm_embed_serving.models import Models, ServedModel
from mllm_embed_serving.pipeline.cache import ResultCache
from mllm_embed_serving.pipeline.disk_store import DiskStore
from mllm_embed_serving.pipeline.front import Front, Outcome
from mllm_embed_serving.pipeline.pictures import Pictures
from mllm_embed_serving.schemas.common import EmbeddingRequest, EncodedRequest, read_json
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.token_ids import decoder
from mllm_embed_serving.tracing import Tracer


class Service:
    """One served model, and the adapters on it.

    Args:
        embedder: the model.
        settings: limits and switches.
        tracer: follows single requests; None follows none.

    Attributes:
        models: what is served, by name.
        settings: limits and switches.
        metrics: counters.
        callers: who may ask.
        admission: the queue.
        reader: reads items of requests for this model.
    """

    def __init__(self, embedder: Embedder, settings: ServerSettings, tracer: Tracer | None = None) -> None:
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
        pictures = Pictures(settings.media_policy(), self.metrics, max_images=settings.max_images)
        cache = _cache(embedder, settings, self.metrics)
        self.models = Models(
            embedder,
            lambda served: Front(
                served,
                pictures,
                cache,
                self.metrics,
                max_numbers=settings.max_multivector_numbers,
                max_tokens=settings.max_request_tokens,
            ),
            most=max(settings.max_adapters, len(settings.adapters)),
            folder=settings.adapters_folder,
        )
        self.reader = ItemReader(
            decode=decoder(settings.token_ids, embedder.decode),
            max_text_chars=settings.max_text_chars,
            max_frames=settings.max_video_frames,
        )

    async def load_adapters(self) -> None:
        """Load the adapters that are served from the start; raises `ModelError` if one does not fit."""
        for name, path in self.settings.adapters.items():
            await self.models.load(name, path)

    async def read(self, request: Request) -> tuple[dict[str, Any], ServedModel]:
        """Return a request's JSON body, and the model that it names.

        Raises:
            InvalidJson: the body is no JSON object.
            InvalidParameter: there is no model in it.
            UnknownModel: it is not served here.
        """
        body = read_json(await request.body())
        return body, self.named_model(body)

    def named_model(self, body: dict[str, Any]) -> ServedModel:
        """Return the model that a body names.

        Raises:
            InvalidParameter: there is no model in it.
            UnknownModel: it is not served here.
        """
        return self.models.find(fields.text(body.get("model"), "model", self.settings.max_text_chars))

    async def embed(self, request: Request, model: ServedModel, wanted: EmbeddingRequest) -> list[Embedding]:
        """Embed what a request asks for, unless its caller hangs up, and count it.

        Raises:
            QueueFull: there is no room for so many items.
            DeadlineExceeded: it takes too long.
            InputError: an input cannot be embedded; its `index` says which.
            ClientGone: the caller hung up first.
        """
        scope = caller_of(request).scope
        async with self.admission.items(len(wanted.inputs)):
            with model.in_use():
                embeddings = await unless_disconnected(request, model.front.embed(wanted, scope))
        self._account(request, embeddings, wanted)
        return embeddings

    async def outcomes(self, request: Request, model: ServedModel, asked: EncodedRequest) -> Sequence[Outcome]:
        """Like `embed`; if the request is `partial`, an input's error stands in its place instead of being raised."""
        if not asked.partial:
            return await self.embed(request, model, asked.wanted)
        scope = caller_of(request).scope
        async with self.admission.items(len(asked.wanted.inputs)):
            with model.in_use():
                outcomes = await unless_disconnected(request, model.front.embed_each(asked.wanted, scope))
        self._account(request, [outcome for outcome in outcomes if isinstance(outcome, Embedding)], asked.wanted)
        return outcomes

    def check_health(self) -> None:
        """Raise `BackendUnavailable` if the engine cannot take work now, or the server is about to stop."""
        self.admission.check()
        self.models.base.embedder.check_health()

    def _is_healthy(self) -> bool:
        try:
            self.models.base.embedder.check_health()
        except BackendUnavailable:
            return False
        return True

    def _account(self, request: Request, embeddings: Sequence[Embedding], wanted: EmbeddingRequest) -> None:
        """Count what was embedded, for the log too, and charge the caller for it."""
        tokens = sum(embedding.tokens for embedding in embeddings)
        caller_of(request).pay(tokens)
        request.state.counts = {"items": len(embeddings), "tokens": tokens, "images": wanted.images}
        self.metrics.record_embeddings(items=len(embeddings), tokens=tokens, images=wanted.images)


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
