"""Model inputs -> pooled vectors: the one forward pass that training and the transformers backend share."""

from __future__ import annotations

from torch import Tensor, nn

from mllm_embed.modeling.inputs import MEAN_MASK, ModelInputs
from mllm_embed.modeling.loading import inner_model
from mllm_embed.modeling.pooling import last_token, mean_of_tokens


def encode(model: nn.Module, inputs: ModelInputs) -> Tensor:
    """Run the model below its language-model head and pool as the model's recipe says.

    Args:
        model: an LVLM from `load_model`, wrapped by PEFT or not.
        inputs: a batch from `InputBuilder.build`, on the model's device.

    Returns:
        pooled states, not normalised, shape [B, D].
    """
    read = {name: tensor for name, tensor in inputs.items() if name != MEAN_MASK}
    hidden = inner_model(model)(**read, use_cache=False).last_hidden_state
    if MEAN_MASK in inputs:
        return mean_of_tokens(hidden, inputs[MEAN_MASK])
    return last_token(hidden, inputs["attention_mask"])
