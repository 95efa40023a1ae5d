"""Items that are embedded part by part where a request asks for it: too long texts by windows, documents by pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mllm_embed.embedder import Embedder
from mllm_embed.long_inputs import mean
from mllm_embed.types import Embedding, EmbedInput, Page, Text
from mllm_embed.vectors import finish
from mllm_embed_serving.schemas.common import EmbeddingRequest

AT_ONCE = 16
"""Parts that are decoded and handed to the engine together."""


async def parts_of(item: EmbedInput, wanted: EmbeddingRequest, embedder: Embedder) -> list[EmbedInput]:
    """Return an item's pages or windows; none for an item that fits, or is not to be embedded part by part.

    Args:
        item: its documents opened.
        wanted: how to embed it.
        embedder: the model.

    Raises:
        InvalidInput: the text is empty, or the instruction leaves no room.
    """
    if wanted.by_page and all(isinstance(part, Page) for part in item.content):
        return [replace(item, content=(page,)) for page in item.content]
    texts = [part.text for part in item.content if isinstance(part, Text)]
    if not wanted.windows or len(texts) < len(item.content):
        return []
    windows = await asyncio.to_thread(
        embedder.windows,
        "".join(texts),
        task=wanted.task,
        role=wanted.role,
        instruction=wanted.instruction if item.instruction is None else item.instruction,
    )
    return [] if len(windows) == 1 else [replace(item, content=(window,)) for window in windows]


def merged(parts: Sequence[Embedding], wanted: EmbeddingRequest) -> Embedding:
    """Return the mean of parts, cut and normalised, what was read for all of them, and pages one by one.

    Args:
        parts: at full width.
        wanted: how to embed them; the width is checked already.
    """
    vectors = np.stack([part.vector for part in parts])
    return Embedding(
        finish(mean(vectors), wanted.dimensions),
        sum(part.tokens for part in parts),
        sum(part.pixels for part in parts),
        parts=finish(vectors, wanted.dimensions) if wanted.by_page else None,
    )
