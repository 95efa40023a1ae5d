"""What can go wrong in a training run, besides what the library raises."""

from mllm_embed.errors import MllmEmbedError


class TrainingFailed(MllmEmbedError):
    """The run cannot go on: the loss is not finite, or does not move."""
