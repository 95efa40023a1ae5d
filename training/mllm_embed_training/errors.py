"""What can go wrong in a training run, besides what the library raises."""

from mllm_embed.errors import MllmEmbedError


class TrainingFailed(MllmEmbedError):
    """The run cannot go on: the loss is not finite, does not move, or too many rows are corrupt."""


class DataFileError(MllmEmbedError):
    """A file of training data that is missing, empty, or of a format that is not read."""


class CorruptRow(MllmEmbedError):
    """One row of the training data that cannot become an example; the message says why."""
