"""Losses: pure functions of tensors. No model, no configuration, no process rank inside."""

from mllm_embed_training.losses.info_nce import duplicate_mask, info_nce
from mllm_embed_training.losses.matryoshka import matryoshka

__all__ = ["duplicate_mask", "info_nce", "matryoshka"]
