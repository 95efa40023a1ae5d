"""Model inputs -> pooled vectors: the one forward pass that training and the transformers backend share."""

from __future__ import annotations

from torch import Tensor, nn

from mllm_embed.modeling.inputs import MEAN_MASK, ModelInputs
from mllm_embed.modeling.loading import inner_model
from mllm_embed.modeling.pooling import last_token, mean_of_tokens
from mllm_embed.modeling.soft_tokens import SOFT_MASK, SOFT_VECTORS, placed


def encode(model: nn.Module, inputs: ModelInputs) -> Tensor:
    """Run the model below its language-model head and pool as the model's recipe says.

    Args:
        model: an LVLM from `load_model`, wrapped by PEFT or not.
        inputs: a batch from `InputBuilder.build`, on the model's device.

    Returns:
        pooled states, not normalised, shape [B, D].
    """
    return pool(token_states(model, inputs), inputs)


def token_states(model: nn.Module, inputs: ModelInputs) -> Tensor:
    """Return the states of all tokens after the last norm, shape [B, S, D]; arguments as for `encode`."""
    read = {name: tensor for name, tensor in inputs.items() if name not in (MEAN_MASK, SOFT_MASK, SOFT_VECTORS)}
    with placed(model, inputs):
        hidden: Tensor = inner_model(model)(**read, use_cache=False).last_hidden_state
    return hidden


def pool(hidden: Tensor, inputs: ModelInputs) -> Tensor:
    """Pool token states, shape [B, S, D], as the model's recipe says, to [B, D]."""
    if MEAN_MASK in inputs:
        return mean_of_tokens(hidden, inputs[MEAN_MASK])
    return last_token(hidden, inputs["attention_mask"])
