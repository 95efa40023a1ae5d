"""Attention masks other than the architecture's own."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn


def attend_both_ways(language_model: nn.Module) -> None:
    """Let every token of a language model see every other one, padding excepted, as MoCa's models do.

    Args:
        language_model: the language model of an LVLM from transformers, called with a 2-D attention mask by keyword.
    """
    layer: Any
    for layer in language_model.modules():
        if hasattr(layer, "is_causal"):
            layer.is_causal = False  # what the flash kernels go by
    language_model.register_forward_pre_hook(partial(_widen, config=language_model.config), with_kwargs=True)


def _widen(
    _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, config: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the model a finished mask, which it takes as it is, instead of one to be made causal."""
    from transformers.masking_utils import create_bidirectional_mask

    mask = create_bidirectional_mask(
        config, kwargs["inputs_embeds"], kwargs["attention_mask"], allow_is_bidirectional_skip=False
    )
    return args, {**kwargs, "attention_mask": mask}
