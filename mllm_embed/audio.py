"""Features of a recording -> soft tokens: the plug-in point for audio. No family here reads sound by itself.

Whoever has an audio tower and a projector into a model's token embeddings writes an `AudioEncoder`. Its soft tokens go
through the same prompt as any content, on engines that take vectors in place of tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from mllm_embed.errors import IncompatibleCheckpoint, InvalidInput
from mllm_embed.types import Audio, SoftTokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AudioEncoder(Protocol):
    """Turns the features of a recording into vectors that a model reads as it reads embeddings of tokens."""

    name: str
    """What it is called in messages."""

    def encode(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return soft tokens, float32, shape [tokens, D] for a model of width D; at least one.

        They stand in the sequence as they are, so in the scale of what the model's embedding layer returns.

        Args:
            features: finite float32, shape [steps, F], at least one number.

        Raises:
            InvalidInput: they are no features of its kind; one sentence that says what it takes.
        """
        ...


class NoAudio:
    """Refuses: the encoder of an embedder that was given none."""

    name = "none"

    def encode(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raise `InvalidInput`."""
        del features
        raise InvalidInput("the model reads no audio: Embedder(..., audio_encoder=...) takes what reads it")


NO_AUDIO = NoAudio()


def encoded(audio: Audio, encoder: AudioEncoder, width: int) -> SoftTokens:
    """Return the soft tokens of a recording; what goes into the encoder is checked, and what comes out.

    Args:
        audio: features.
        encoder: makes soft tokens of them.
        width: of the model.

    Raises:
        InvalidInput: no finite numbers of two dimensions, or no features of the encoder's kind.
        IncompatibleCheckpoint: the encoder's vectors are not of the model's width, or not finite.
    """
    features = np.asarray(audio.source)
    if features.ndim != 2 or not features.size or features.dtype.kind not in "fiu":
        raise InvalidInput(
            f"features of audio must be numbers of shape [steps, F], but are {features.dtype} {list(features.shape)}"
        )
    if not np.isfinite(features).all():
        raise InvalidInput("features of audio must be finite, but some are NaN or infinite")
    vectors = np.asarray(encoder.encode(features.astype(np.float32)), dtype=np.float32)
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != width or not np.isfinite(vectors).all():
        raise IncompatibleCheckpoint(
            f"the audio encoder {encoder.name} must return finite vectors of shape [tokens, {width}], at least one, "
            f"but returned {list(vectors.shape)}"
        )
    return SoftTokens(vectors)
