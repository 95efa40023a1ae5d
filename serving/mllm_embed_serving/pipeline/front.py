"""The items of a request -> vectors: each on its own way to the engine, equal ones in flight together.

    item -> pictures fetched -> equal item in flight? -> cached? -> parts -> pictures decoded -> Embedder -> vector

An item never waits for the other items of its request, nor for anybody's slow picture.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from mllm_embed.embedder import Embedder
from mllm_embed.errors import InputError
from mllm_embed.preparation import check_count
from mllm_embed.types import DENSE, Embedding, EmbedInput
from mllm_embed.vectors import check_dimensions
from mllm_embed_serving.errors import InvalidParameter
from mllm_embed_serving.metrics import Metrics
from mllm_embed_serving.pipeline.cache import ResultCache
from mllm_embed_serving.pipeline.flights import Flights
from mllm_embed_serving.pipeline.keys import item_key
from mllm_embed_serving.pipeline.long_items import AT_ONCE, merged, parts_of
from mllm_embed_serving.pipeline.measured import RENDERING, MeasuredBackend
from mllm_embed_serving.pipeline.pictures import PictureBudget, Pictures
from mllm_embed_serving.pipeline.token_limit import TokenLimit
from mllm_embed_serving.schemas.common import EmbeddingRequest, ItemError

Outcome = Embedding | ItemError
"""What becomes of one item."""


class Front:
    """Embeds requests item by item.

    Args:
        embedder: the model.
        pictures: loads the pictures of all models.
        cache: results of before.
        metrics: takes the times of the stages.
        max_numbers: most numbers that the multivectors of a request may hold together.
        max_tokens: most tokens that the texts of a request may hold together.
    """

    def __init__(
        self,
        embedder: Embedder,
        pictures: Pictures,
        cache: ResultCache,
        metrics: Metrics,
        *,
        max_numbers: int,
        max_tokens: int,
    ) -> None:
        measured = MeasuredBackend(embedder.backend, metrics)
        self._embedder = Embedder(embedder.model_dir, measured, pictures.policy, embedder.region_encoder)
        self._cache = cache
        self._pictures = pictures
        self._max_numbers = max_numbers
        self._tokens = TokenLimit(embedder.model_dir, max_tokens)
        self._flights: Flights[Embedding] = Flights()

    async def embed(self, wanted: EmbeddingRequest, scope: str) -> list[Embedding]:
        """Embed all items of a request.

        Args:
            wanted: the items, and how to embed them.
            scope: whose request it is; results are shared inside a scope only.

        Raises:
            InputError: the first item that cannot be embedded, with its index; the work on later ones is dropped.
            InvalidParameter: the first item that is malformed.
            TooManyTokens: all texts together are too long.
            BackendError: the engine is down or full.
        """
        embeddings = []
        async with aclosing(self._outcomes(wanted, scope)) as outcomes:
            async for outcome in outcomes:
                if not isinstance(outcome, Embedding):
                    raise outcome
                embeddings.append(outcome)
        return embeddings

    async def embed_each(self, wanted: EmbeddingRequest, scope: str) -> list[Outcome]:
        """Embed what can be embedded; where an item cannot, its error stands in its place.

        Raises:
            InvalidDimensions: the width is not offered, whatever the item.
            TooManyTokens: all texts together are too long.
            BackendError: the engine is down or full.
        """
        async with aclosing(self._outcomes(wanted, scope)) as outcomes:
            return [outcome async for outcome in outcomes]

    async def _outcomes(self, wanted: EmbeddingRequest, scope: str) -> AsyncGenerator[Outcome, None]:
        """Yield what becomes of the items, in order, while all are under way; those that are not asked for end."""
        recipe = self._embedder.model_dir.recipe
        check_dimensions(wanted.dimensions, recipe.dimensions, recipe.matryoshka_dimensions)
        await self._tokens.check(wanted)
        request = _Request(wanted, scope, self._pictures.budget(wanted.images), NumberBudget(self._max_numbers))
        tasks = [asyncio.ensure_future(self._outcome(item, request)) for item in wanted.inputs]
        try:
            for index, task in enumerate(tasks):
                outcome = await task
                if isinstance(outcome, InputError):
                    outcome.index = index  # the embedder saw a single item, and counted from there
                yield outcome
        finally:
            for task in tasks:
                task.cancel()

    async def _outcome(self, item: EmbedInput | ItemError, request: _Request) -> Outcome:
        if not isinstance(item, EmbedInput):
            return item
        try:
            item = await self._pictures.fetched(item)
            key = await item_key(item, request.wanted, f"{self._embedder.model_dir.fingerprint} {request.scope}")
            embedding = await self._flights.join(key, lambda: self._find(key, item, request))
        except (InputError, InvalidParameter) as error:
            return error
        request.numbers.spend(embedding)  # refuses the request, not the item
        return embedding

    async def _find(self, key: bytes, item: EmbedInput, request: _Request) -> Embedding:
        """Return the known result, or let the engine make it; only single vectors are kept."""
        wanted = request.wanted
        kept = wanted.outputs == DENSE and not wanted.by_page
        if kept and (known := await self._cache.get(key)) is not None:
            return known
        item = await self._pictures.opened(item, request.pictures)
        parts = await parts_of(item, wanted, self._embedder)
        if parts:
            embedding = merged(await self._embed_parts(parts, request, None), wanted)
        else:
            check_count(item.content)  # before any of it is decoded
            (embedding,) = await self._embed_parts([item], request, wanted.dimensions)
        if kept:
            await self._cache.put(key, embedding)
        return embedding

    async def _embed_parts(
        self, parts: Sequence[EmbedInput], request: _Request, dimensions: int | None
    ) -> list[Embedding]:
        """Embed the parts of an item, a few at a time, since their pictures are in memory together."""
        wanted, embeddings = request.wanted, list[Embedding]()
        for start in range(0, len(parts), AT_ONCE):
            some = parts[start : start + AT_ONCE]
            decoded = [await self._pictures.decoded(part, request.pictures) for part in some]
            RENDERING.set(time.perf_counter())
            embeddings += await self._embedder.aembed(
                decoded,
                task=wanted.task,
                role=wanted.role,
                instruction=wanted.instruction,
                dimensions=dimensions,
                truncate=wanted.truncate,
                outputs=wanted.outputs,
            )
        return embeddings


class NumberBudget:
    """Counts the numbers in the multivectors of one request.

    Args:
        limit: most numbers together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent = 0

    def spend(self, embedding: Embedding) -> None:
        """Count an item's.

        Raises:
            InvalidParameter: they are more than the limit.
        """
        if embedding.multivector is None:
            return
        self._spent += embedding.multivector.size
        if self._spent > self._limit:
            raise InvalidParameter(
                f"multivectors may hold at most {self._limit:,} numbers per request, but hold {self._spent:,} or more: "
                "send fewer items, or set dimensions",
                param="outputs",
            )


@dataclass(frozen=True)
class _Request:
    """What the items of one request share."""

    wanted: EmbeddingRequest
    scope: str
    pictures: PictureBudget
    numbers: NumberBudget
