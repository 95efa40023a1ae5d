"""Raw vector -> embedding: cut (Matryoshka), then L2-normalise, once; then the wire encodings. Numpy only."""

from __future__ import annotations

import base64
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import BackendError, InvalidDimensions

Quantisation = Literal["int8", "uint8", "binary", "ubinary"]


def check_dimensions(dimensions: int | None, width: int, offered: tuple[int, ...] = ()) -> int:
    """Return the width to cut to.

    Args:
        dimensions: what the caller asks for; None means the full width.
        width: the model's full width.
        offered: widths the model was trained for (Matryoshka); empty means any width up to the full one.

    Raises:
        InvalidDimensions: below 1, above `width`, or not among `offered`.
    """
    if dimensions is None:
        return width
    if not 1 <= dimensions <= width:
        raise InvalidDimensions(f"dimensions must be between 1 and {width}, but is {dimensions}")
    if offered and dimensions != width and dimensions not in offered:
        known = ", ".join(map(str, sorted({*offered, width})))
        raise InvalidDimensions(f"dimensions must be one of {known} for this model, but is {dimensions}")
    return dimensions


def finish(raw: NDArray[np.float32], dimensions: int | None = None) -> NDArray[np.float32]:
    """Cut to `dimensions`, then L2-normalise (cutting a unit vector without normalising again is the classic mistake).

    Args:
        raw: pooled vectors, float, shape [..., D].
        dimensions: width to keep, already checked by `check_dimensions`; None keeps all.

    Returns:
        float32 unit vectors, shape [..., dimensions].

    Raises:
        BackendError: a vector is zero, NaN or infinite, so that it has no direction.
    """
    cut = np.asarray(raw, dtype=np.float32)[..., :dimensions]
    norm = np.linalg.norm(cut, axis=-1, keepdims=True)
    if not np.all(np.isfinite(norm)) or not np.all(norm > 0):
        raise BackendError("the model returned a vector that is zero or not finite")
    return np.asarray(cut / norm, dtype=np.float32)


def quantise(vector: NDArray[np.float32], kind: Quantisation) -> NDArray[np.int8] | NDArray[np.uint8]:
    """Write a vector with one byte, or one bit, per number.

    int8 and uint8 are scaled by each vector's own greatest magnitude, so that the cosines of int8 vectors are those of
    the floats up to rounding (uint8 is the same plus 128); no calibration set is needed. binary and ubinary hold the
    signs, eight to a byte, first number in the highest bit: for Hamming distances.

    Args:
        vector: float32, not zero, shape [..., D]; D a multiple of 8 for binary and ubinary.
        kind: `int8`, `uint8`, `binary` (signed bytes) or `ubinary`.

    Returns:
        int8 or uint8, shape [..., D] or [..., D / 8].

    Raises:
        InvalidDimensions: a width that bits do not fill whole bytes of.
    """
    if kind in ("int8", "uint8"):
        scale = 127 / np.abs(vector).max(axis=-1, keepdims=True)
        scaled = np.rint(vector * scale)
        signed: NDArray[np.int8] = scaled.astype(np.int8)
        return signed if kind == "int8" else (scaled + 128).astype(np.uint8)
    if vector.shape[-1] % 8:
        raise InvalidDimensions(f"dimensions must be a multiple of 8 for {kind}, but is {vector.shape[-1]}")
    packed: NDArray[np.uint8] = np.packbits(vector > 0, axis=-1)
    return packed if kind == "ubinary" else np.asarray(packed.astype(np.int16) - 128, dtype=np.int8)


def to_base64(vector: NDArray[np.float32]) -> str:
    """Encode as base64 of little-endian float32, as the OpenAI API does (`encoding_format: base64`)."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def from_base64(text: str) -> NDArray[np.float32]:
    """Decode what `to_base64` made; float32, shape [D]."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
