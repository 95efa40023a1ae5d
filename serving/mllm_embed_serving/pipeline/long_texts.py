"""Texts that are longer than the model takes, embedded window by window where a request asks for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np

from mllm_embed.embedder import Embedder
from mllm_embed.long_inputs import mean
from mllm_embed.types import Embedding, EmbedInput, Text
from mllm_embed.vectors import finish
from mllm_embed_serving.schemas.common import EmbeddingRequest


async def windows_of(item: EmbedInput, wanted: EmbeddingRequest, embedder: Embedder) -> list[EmbedInput]:
    """Return an item's windows; what fits, and what is not text alone, stays the item that it is.

    Raises:
        InvalidInput: the text is empty, or the instruction leaves no room.
    """
    texts = [part.text for part in item.content if isinstance(part, Text)]
    if not wanted.windows or len(texts) < len(item.content):
        return [item]
    windows = await asyncio.to_thread(
        embedder.windows,
        "".join(texts),
        task=wanted.task,
        role=wanted.role,
        instruction=wanted.instruction if item.instruction is None else item.instruction,
    )
    return [item] if len(windows) == 1 else [replace(item, content=(window,)) for window in windows]


def merged(windows: list[Embedding], dimensions: int | None) -> Embedding:
    """Return the mean of windows, cut and normalised, and the tokens that were read for all of them.

    Args:
        windows: at full width.
        dimensions: width to cut to, already checked; None keeps the full one.
    """
    vector = finish(mean(np.stack([window.vector for window in windows])), dimensions)
    return Embedding(vector, sum(window.tokens for window in windows))
