"""How many tokens all texts of a request hold together: as OpenAI does, a server limits them, whatever their number."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

from mllm_embed.model_dir import ModelDir
from mllm_embed.prompts import load_tokenizer
from mllm_embed.types import EmbedInput, Text
from mllm_embed_serving.errors import TooManyTokens
from mllm_embed_serving.schemas.common import EmbeddingRequest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOKENS_PER_CHARACTER = 4
"""At most: tokenizers fall back on the bytes of UTF-8."""
_AT_ONCE = 64
"""Texts that are tokenised before the sum is looked at."""


class TokenLimit:
    """Refuses requests before any of their items is embedded, and counts only where the limit is within reach.

    Args:
        model_dir: whose tokenizer counts.
        most: tokens of all texts together, without instructions and what the template adds.
    """

    def __init__(self, model_dir: ModelDir, most: int) -> None:
        self._model_dir = model_dir
        self._most = most

    async def check(self, wanted: EmbeddingRequest) -> None:
        """Count the tokens of a request; of a text that will be cut, those that are read.

        Raises:
            TooManyTokens: they are more than the limit.
        """
        texts = ["".join(_texts(item)) for item in wanted.inputs if isinstance(item, EmbedInput)]
        if sum(map(len, texts)) * _TOKENS_PER_CHARACTER > self._most:
            await asyncio.to_thread(self._count, texts, None if wanted.truncate == "none" else self._longest)

    def _count(self, texts: list[str], longest: int | None) -> None:
        tokens = 0
        for start in range(0, len(texts), _AT_ONCE):
            for found in self._tokenizer.encode_batch_fast(texts[start : start + _AT_ONCE], add_special_tokens=False):
                tokens += len(found) if longest is None else min(len(found), longest)
            if tokens > self._most:
                raise TooManyTokens(
                    f"the texts of a request may hold at most {self._most:,} tokens together, but hold {tokens:,} "
                    "or more: send fewer at a time"
                )

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._model_dir.tokenizer_file)

    @property
    def _longest(self) -> int:
        return self._model_dir.recipe.max_tokens


def _texts(item: EmbedInput) -> list[str]:
    return [part.text for part in item.content if isinstance(part, Text)]
