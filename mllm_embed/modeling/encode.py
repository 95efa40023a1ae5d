"""Model inputs -> pooled vectors: the one forward pass that training and the transformers backend share."""

from __future__ import annotations

from torch import Tensor, nn

from mllm_embed.modeling.inputs import ModelInputs
from mllm_embed.modeling.loading import inner_model
from mllm_embed.modeling.pooling import last_token


def encode(model: nn.Module, inputs: ModelInputs) -> Tensor:
    """Run the model below its language-model head and pool the last token.

    Args:
        model: an LVLM from `load_model`, wrapped by PEFT or not.
        inputs: a batch from `InputBuilder.build`, on the model's device.

    Returns:
        pooled states, not normalised, shape [B, D].
    """
    output = inner_model(model)(**inputs, use_cache=False)
    return last_token(output.last_hidden_state, inputs["attention_mask"])
