from __future__ import annotations

import base64
import struct

import numpy as np
import pytest

from mllm_embed.errors import BackendError, InvalidDimensions
from mllm_embed.vectors import check_dimensions, finish, from_base64, quantise, to_base64

pytestmark = pytest.mark.fast


def raw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
@pytest.mark.parametrize("width", [1, 5, 8, None])
def test_vectors_are_cut_and_then_normalised(shape: tuple[int, ...], width: int | None) -> None:
    vectors = finish(raw(*shape), width)
    assert vectors.dtype == np.float32
    assert vectors.shape == (*shape[:-1], width or 8)
    assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-6)
    start = raw(*shape)[..., :width]
    assert np.allclose(vectors, start / np.linalg.norm(start, axis=-1, keepdims=True), atol=1e-6)


def test_the_input_is_left_alone() -> None:
    vectors = raw(2, 4)
    finish(vectors, 2)
    assert np.array_equal(vectors, raw(2, 4))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_the_backends_fault(bad: float) -> None:
    vectors = raw(3, 4)
    vectors[1] = bad
    with pytest.raises(BackendError, match="zero or not finite"):
        finish(vectors)


def test_a_vector_that_is_zero_after_the_cut_has_no_direction() -> None:
    with pytest.raises(BackendError):
        finish(np.array([0, 0, 1], dtype=np.float32), 2)


def test_widths() -> None:
    assert check_dimensions(None, 320) == 320
    assert check_dimensions(1, 320) == 1
    assert check_dimensions(320, 320, (64, 128)) == 320
    assert check_dimensions(64, 320, (64, 128)) == 64


@pytest.mark.parametrize("wrong", [0, -1, 321])
@pytest.mark.parametrize("offered", [(), (64, 128)])
def test_widths_out_of_range_name_the_range(wrong: int, offered: tuple[int, ...]) -> None:
    with pytest.raises(InvalidDimensions, match=f"between 1 and 320, but is {wrong}"):
        check_dimensions(wrong, 320, offered)


def test_widths_that_were_not_trained_name_those_that_were() -> None:
    with pytest.raises(InvalidDimensions, match="one of 64, 128, 320 for this model, but is 65"):
        check_dimensions(65, 320, (64, 128))


def test_base64_is_little_endian_float32() -> None:
    assert to_base64(np.array([1.0, -2.5], dtype=np.float32)) == base64.b64encode(struct.pack("<2f", 1, -2.5)).decode()
    vector = raw(7)
    assert np.array_equal(from_base64(to_base64(vector)), vector)
    assert np.array_equal(from_base64(to_base64(vector[::2])), vector[::2])  # not contiguous


def test_bytes_keep_cosines_and_bits_keep_signs() -> None:
    vectors = finish(np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32))
    small = quantise(vectors, "int8")
    assert small.dtype == np.int8
    assert np.abs(small).max(axis=1).tolist() == [127, 127]
    unit = small / np.linalg.norm(small, axis=1, keepdims=True)
    assert float(unit[0] @ unit[1]) == pytest.approx(float(vectors[0] @ vectors[1]), abs=0.01)
    np.testing.assert_array_equal(quantise(vectors, "uint8").astype(int), small.astype(int) + 128)
    bits = quantise(vectors, "ubinary")
    np.testing.assert_array_equal(np.unpackbits(bits.astype(np.uint8), axis=1), vectors > 0)
    np.testing.assert_array_equal(quantise(vectors, "binary").astype(int), bits.astype(int) - 128)
    with pytest.raises(InvalidDimensions, match="multiple of 8 for binary, but is 12"):
        quantise(vectors[:, :12], "binary")
