"""Pictures beside the sequence: language models that look at them through layers of cross attention.

transformers differs in two places from the code of Llama 3.2 Vision's authors (meta-llama/llama-models), which is put
right here. A token looks at the last pictures before it, and one that has none passes these layers unchanged;
transformers lets it attend to every picture of the batch, those behind it and padding included, so that a vector
depends on its neighbours. And what is read between the tower's layers is what goes into those that the configuration
names; transformers 5 reads what comes out of them (transformers 4.48 did not).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def follow_authors(model: nn.Module) -> None:
    """Let a model compute as its authors' code does.

    Args:
        model: from transformers; one that does not look at pictures through cross attention is left as it is.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "cross_attn_attn_gate"):
            module.register_forward_hook(_keep_unseeing, with_kwargs=True)
        if hasattr(module, "intermediate_layers_indices"):
            module.transformer.register_forward_hook(_read_before_layers)


def _keep_unseeing(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
    """Give tokens without a picture the states back that came in."""
    seeing = kwargs["full_text_row_masked_out_mask"][:, 0].bool()  # [B, S, 1]
    return torch.where(seeing, output, args[0])


def _read_before_layers(encoder: Any, args: tuple[Any, ...], output: Any) -> None:
    """Number what is read between layers by the layer that it goes into."""
    if len(output.hidden_states) == len(encoder.layers):  # one more, and they are numbered so
        output.hidden_states = (args[0], *output.hidden_states)


def stand_beside(pixels: Mapping[str, Tensor], rows: Sequence[int], tokens: Tensor, picture: int) -> dict[str, Tensor]:
    """Give every row of a batch its pictures, and every token those that it looks at.

    Args:
        pixels: what the image processor makes of the rows with pictures, each of shape [rows, pictures, tiles, ...] or
            [rows, pictures]; `aspect_ratio_mask` says which tiles are no padding.
        rows: which rows of the batch these are.
        tokens: ids of the whole batch, shape [B, S].
        picture: the id that stands for a picture.

    Returns:
        the same for the whole batch, zeros where a row has fewer pictures, and `cross_attention_mask`: 1 where a token
        looks at a tile, shape [B, S, pictures, tiles].
    """
    spread = {name: _spread(tensor, rows, len(tokens)) for name, tensor in pixels.items()}
    return {**spread, "cross_attention_mask": _sight(tokens, picture, spread["aspect_ratio_mask"])}


def _spread(tensor: Tensor, rows: Sequence[int], batch: int) -> Tensor:
    """Put rows, shape [R, ...], into their places in a batch, shape [B, ...]."""
    whole = tensor.new_zeros(batch, *tensor.shape[1:])
    whole[list(rows)] = tensor
    return whole


def _sight(tokens: Tensor, picture: int, tiles: Tensor) -> Tensor:
    """Return which tiles, of those in `tiles` [B, pictures, T], each token looks at."""
    from transformers.models.mllama.processing_mllama import (
        convert_sparse_cross_attention_mask_to_dense,
        get_cross_attention_token_mask,
    )

    spans = [get_cross_attention_token_mask(row, picture) for row in tokens.tolist()]
    counts = tiles.sum(dim=-1).tolist()  # of pictures that a row lacks too: there are no spans for these
    mask = convert_sparse_cross_attention_mask_to_dense(spans, counts, tiles.shape[-1], tokens.shape[1])
    return torch.from_numpy(mask)
