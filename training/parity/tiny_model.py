"""A Qwen2-VL of 37,000 weights, a batch for it, and the same model in VLM2Vec's fork and in transformers.

Weights are whole numbers / 64, so that one byte stores each exactly.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parity.checkouts import Checkouts

IMAGE, VISION_START, VISION_END = 113, 110, 111
UNIT = 64
CONFIG: dict[str, Any] = {
    "model_type": "qwen2_vl",
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_sliding_window": False,
    "sliding_window": 256,
    "max_window_layers": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "image_token_id": IMAGE,
    "video_token_id": 114,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
    "vision_config": {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": 32,
        "mlp_ratio": 2,
        "num_heads": 2,
        "in_channels": 3,
        "in_chans": 3,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": 0.02,
    },
}
PATCH = 3 * 2 * 4 * 4
"""Numbers per patch: colours, frames, height, width."""
ROWS: list[tuple[int, tuple[int, int] | None]] = [
    (9, (4, 4)),
    (5, None),
    (3, (4, 6)),
    (6, None),
    (11, None),
    (7, None),
    (4, (4, 4)),
    (8, (2, 4)),
]
"""Words and picture (patches high and wide) of each row; in chunks of two, the third has no picture."""


def fork_class(checkouts: Checkouts) -> Any:
    """Return VLM2Vec's Qwen2-VL."""
    return checkouts.vlm2vec_module("src.model.vlm_backbone.qwen2_vl").Qwen2VLForConditionalGeneration


def stock_class() -> Any:
    """Return transformers' Qwen2-VL."""
    from transformers import Qwen2VLForConditionalGeneration

    return Qwen2VLForConditionalGeneration


def build(model_class: Any, weights: dict[str, NDArray[np.int8]] | None) -> nn.Module:
    """Make the tiny model, in float32 with the plain attention kernel.

    Args:
        model_class: `fork_class` or `stock_class`.
        weights: from `random_weights`; None keeps those of the constructor.
    """
    from transformers import AutoConfig

    config = AutoConfig.for_model(**deepcopy(CONFIG))  # transformers writes into it
    for part in (config, config.text_config, config.vision_config):
        part._attn_implementation = "eager"  # noqa: SLF001  # as VLM2Vec sets its own kernel
    config.use_cache = False
    model: nn.Module = model_class(config)
    if weights is not None:
        known = {_stock_name(name) if model_class is stock_class() else name: w for name, w in weights.items()}
        model.load_state_dict({name: torch.from_numpy(w).float() / UNIT for name, w in known.items()})
    return model.eval()


def random_weights(model: nn.Module) -> dict[str, NDArray[np.int8]]:
    """Draw weights, under the names of published Qwen2-VL checkpoints, which are the fork's."""
    rng = np.random.default_rng(0)
    drawn: dict[str, NDArray[np.int8]] = {}
    for name, parameter in model.named_parameters():
        centre, spread = (0, 64) if "embed_tokens" in name else (0, 16) if parameter.ndim > 1 else (0, 8)
        if parameter.ndim == 1 and "norm" in name and name.endswith("weight"):
            centre, spread = 64, 16
        drawn[name] = rng.integers(centre - spread, centre + spread, tuple(parameter.shape)).astype(np.int8)
    return drawn


def random_rows(seed: int, *, markers: bool) -> tuple[list[list[int]], list[NDArray[np.int8] | None]]:
    """Draw token ids and patches of the rows.

    Args:
        seed: of the draw.
        markers: put `<|vision_start|>` and `<|vision_end|>` around pictures, as VLM2Vec does not.

    Returns:
        token ids, and the patches [patches, PATCH] * UNIT of rows with a picture.
    """
    rng = np.random.default_rng(seed)
    ids: list[list[int]] = []
    patches: list[NDArray[np.int8] | None] = []
    for words, grid in ROWS:
        text = rng.integers(3, 100, words).tolist()
        picture = [] if grid is None else [IMAGE] * (grid[0] * grid[1] // 4)
        if picture and markers:
            picture = [VISION_START, *picture, VISION_END]
        ids.append(text[:2] + picture + text[2:])
        patches.append(None if grid is None else rng.integers(-64, 64, (grid[0] * grid[1], PATCH)).astype(np.int8))
    return ids, patches


def pad(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    """Pad token ids; return them and the attention mask, int64 [B, S]."""
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[index, where] = torch.tensor(row)
        mask[index, where] = 1
    return ids, mask


def fork_inputs(ids: Tensor, mask: Tensor, patches: list[NDArray[np.int8] | None]) -> dict[str, Any]:
    """Return a batch as VLM2Vec's collator hands it over: one entry per row, None where there is no picture."""
    pixels = [None if rows is None else rows.astype(np.float32) / UNIT for rows in patches]
    grids = [None if grid is None else torch.tensor([[1, *grid]]) for _, grid in ROWS]
    nothing = [None] * len(ROWS)
    videos = {"pixel_values_videos": nothing, "video_grid_thw": nothing}
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels, "image_grid_thw": grids, **videos}


def stock_inputs(ids: Tensor, mask: Tensor, patches: list[NDArray[np.int8] | None]) -> dict[str, Tensor]:
    """Return the same batch as transformers takes it."""
    pixels = np.concatenate([rows for rows in patches if rows is not None]).astype(np.float32) / UNIT
    grids = torch.tensor([[1, *grid] for _, grid in ROWS if grid is not None])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.from_numpy(pixels),
        "image_grid_thw": grids,
    }


def _stock_name(name: str) -> str:
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)
