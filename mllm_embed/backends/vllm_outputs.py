"""The states that vLLM returns for a prompt -> the outputs that are wanted of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import BackendError
from mllm_embed.modeling.lexical_head import LexicalHead
from mllm_embed.types import Embedding, RenderedPrompt

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir


class OutputMaker:
    """Makes outputs, on the engine's event loop.

    vLLM drops the language-model head of a model that embeds, so its product is computed here, in one thread.

    Args:
        model_dir: the opened model directory.
        precision: in which the engine computes.
    """

    def __init__(self, model_dir: ModelDir, precision: str) -> None:
        self._head = LexicalHead(model_dir, precision)
        self._one_at_a_time = asyncio.Semaphore(1)

    async def make(
        self, prompt: RenderedPrompt, states: NDArray[np.float32], tokens: int, adapter: Path | None
    ) -> Embedding:
        """Return what is wanted of a prompt.

        Args:
            prompt: the prompt.
            states: of its last token, shape [D]; of all its tokens, shape [S, D], if a multivector is wanted.
            tokens: how many the engine read.
            adapter: folder of the LoRA adapter that they went through, if any.

        Raises:
            BackendError: the engine read other tokens than it should have.
            InvalidInput: the model gives no words.
        """
        vector, multivector, lexical = states, None, None
        if prompt.content is not None:
            if not len(states) == tokens == len(prompt.content):
                raise BackendError(
                    f"vLLM read {tokens} tokens and returned {len(states)} states, but {len(prompt.content)} are due"
                )
            vector, multivector = states[-1].copy(), states[np.asarray(prompt.content)]
        if prompt.words:
            async with self._one_at_a_time:
                lexical = await asyncio.to_thread(self._head.words, vector, prompt.words, adapter)
        return Embedding(vector, tokens, multivector=multivector, lexical=lexical)
