"""Losses: pure functions of tensors. No model, no configuration, no process rank inside."""

from mllm_embed_training.losses.geometry import alignment, geodesic_mixup, slerp, uniformity
from mllm_embed_training.losses.guided import cwcl, one_to_k, score_distillation, similarity_distillation
from mllm_embed_training.losses.info_nce import info_nce, soft_info_nce
from mllm_embed_training.losses.masks import duplicate_mask, easy_mask, false_negative_mask, first_columns
from mllm_embed_training.losses.matryoshka import matryoshka
from mllm_embed_training.losses.siglip import siglip

__all__ = [
    "alignment",
    "cwcl",
    "duplicate_mask",
    "easy_mask",
    "false_negative_mask",
    "first_columns",
    "geodesic_mixup",
    "info_nce",
    "matryoshka",
    "one_to_k",
    "score_distillation",
    "siglip",
    "similarity_distillation",
    "slerp",
    "soft_info_nce",
    "uniformity",
]
