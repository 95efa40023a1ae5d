"""What the routes share: the embedder, the settings, the counters, and what is derived from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from starlette.requests import Request

from mllm_embed.embedder import Embedder
from mllm_embed.types import Embedding
from mllm_embed_serving import fields
from mllm_embed_serving.content import ItemReader
from mllm_embed_serving.disconnects import unless_disconnected
from mllm_embed_serving.errors import UnknownModel
from mllm_embed_serving.fields import shown
from mllm_embed_serving.metrics import Metrics
from mllm_embed_serving.pipeline.front import Front, Outcome
from mllm_embed_serving.schemas.common import EmbeddingRequest, EncodedRequest, read_json
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.token_ids import decoder


class Service:
    """One served model.

    Args:
        embedder: the model.
        settings: limits and switches.

    Attributes:
        embedder: the model.
        settings: limits and switches.
        metrics: counters.
        reader: reads items of requests for this model.
    """

    def __init__(self, embedder: Embedder, settings: ServerSettings) -> None:
        self.embedder = embedder
        self.settings = settings
        self.metrics = Metrics()
        self._front = Front(embedder, settings.media_policy(), self.metrics)
        self.reader = ItemReader(
            decode=decoder(settings.token_ids, embedder.decode), max_text_chars=settings.max_text_chars
        )

    async def read(self, request: Request) -> tuple[dict[str, Any], str]:
        """Return a request's JSON body, and the model that it names, which is the served one.

        Raises:
            InvalidJson: the body is no JSON object.
            InvalidParameter: there is no model in it.
            UnknownModel: it is another.
        """
        body = read_json(await request.body())
        model = fields.text(body.get("model"), "model", self.settings.max_text_chars)
        self.check_model(model)
        return body, model

    def check_model(self, name: str) -> None:
        """Raise `UnknownModel` unless `name` is the served model."""
        if name != self.embedder.name:
            raise UnknownModel(
                f"the model {shown(name)} does not exist here; this server serves {self.embedder.name!r}", param="model"
            )

    async def embed(self, request: Request, wanted: EmbeddingRequest) -> list[Embedding]:
        """Embed what a request asks for, unless its caller hangs up, and count it.

        Raises:
            InputError: an input cannot be embedded; its `index` says which.
            ClientGone: the caller hung up first.
        """
        embeddings = await unless_disconnected(request, self._front.embed(wanted, _scope(request)))
        self._count(embeddings, wanted)
        return embeddings

    async def outcomes(self, request: Request, asked: EncodedRequest) -> Sequence[Outcome]:
        """Like `embed`; if the request is `partial`, an input's error stands in its place instead of being raised."""
        if not asked.partial:
            return await self.embed(request, asked.wanted)
        outcomes = await unless_disconnected(request, self._front.embed_each(asked.wanted, _scope(request)))
        self._count([outcome for outcome in outcomes if isinstance(outcome, Embedding)], asked.wanted)
        return outcomes

    def _count(self, embeddings: Sequence[Embedding], wanted: EmbeddingRequest) -> None:
        tokens = sum(embedding.tokens for embedding in embeddings)
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


def _scope(_request: Request) -> str:
    """Return whose request it is: what is computed for one caller is never handed to another."""
    return ""
