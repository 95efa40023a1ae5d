"""A checkpoint's language-model head beside an engine that does not load it."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from mllm_embed.errors import InvalidInput
from mllm_embed.lexical import WordTable

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir


class LexicalHead:
    """The head and its words, on the CPU; read when first used, and mapped from the file where its dtype is wanted.

    Args:
        model_dir: the opened model directory.
        precision: in which the engine computes: `float32`, `bfloat16`, `float16` or `4bit`.
    """

    def __init__(self, model_dir: ModelDir, precision: str) -> None:
        self._model_dir = model_dir
        self._dtype = torch.bfloat16 if precision == "4bit" else getattr(torch, precision)
        self._table = WordTable(model_dir.tokenizer_file)

    def words(self, state: NDArray[np.float32], most: int, adapter: Path | None) -> dict[str, float]:
        """Return the heaviest words for the state of the last token.

        Args:
            state: after the last norm, not normalised, float32, shape [D].
            most: how many words.
            adapter: folder of the LoRA adapter that the state went through, if any.

        Raises:
            InvalidInput: the checkpoint has no head, or the adapter changes it.
        """
        if adapter is not None and _changes_head(adapter):
            raise InvalidInput(
                f"{self._model_dir.recipe.name} gives no lexical output on vLLM, since its adapter changes the "
                "language-model head: merge it (mllm-embed export), or use the transformers backend"
            )
        with torch.inference_mode():
            logits = torch.nn.functional.linear(torch.from_numpy(state).to(self._dtype), self._weight)  # [V]
        return self._table.weigh(logits.float().numpy(), most)

    @cached_property
    def _weight(self) -> Tensor:
        """The head's matrix, shape [V, D]: its own, or the input embeddings where the model ties the two."""
        from transformers import AutoConfig

        folder = self._model_dir.weights
        tied = AutoConfig.from_pretrained(str(folder)).tie_word_embeddings
        found = _find(folder, "embed_tokens" if tied else "lm_head")
        if found is None:
            name = self._model_dir.recipe.name
            raise InvalidInput(f"{name} gives no lexical output, since its checkpoint holds no language-model head")
        file, key = found
        with safe_open(file, framework="pt") as stored:
            weight: Tensor = stored.get_tensor(key)
        return weight.to(self._dtype)


@lru_cache
def _changes_head(adapter: Path) -> bool:
    return any(_find(adapter, part) is not None for part in ("lm_head", "embed_tokens"))


def _find(folder: Path, part: str) -> tuple[Path, str] | None:
    """Return the file and the name of the first stored weight of a part, if there is one."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118  # not a mapping
                if f".{part}." in f".{key}":
                    return file, key
    return None
