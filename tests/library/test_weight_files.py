from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.weight_files import check_safetensors, check_weights

pytestmark = pytest.mark.fast

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_whole_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(safetensors({"__metadata__": {"format": "pt"}, "w": ENTRY}))
    check_safetensors(file)
    check_weights(tmp_path)


def test_files_written_by_the_library_pass(tmp_path: Path) -> None:
    import numpy as np

    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"a": np.zeros((3, 2)), "b": np.zeros(0)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    check_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated or not a safetensors file"),
        (b"\x01\x00", "truncated or not a safetensors file"),
        (b"PK\x03\x04 a zip, such as PyTorch's own format", "truncated or not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (safetensors(b"not JSON"), "header cannot be read"),
        (safetensors(b"\xff\xff"), "header cannot be read"),
        (safetensors([1]), "header cannot be read"),
        (safetensors({"w": 1}), "header cannot be read"),
        (safetensors({"w": {"data_offsets": [0]}}), "header cannot be read"),
        (safetensors({}, b""), "holds no weights"),
        (safetensors({"w": ENTRY}, bytes(7)), r"must have [\d,]+ bytes, but has"),
        (safetensors({"w": ENTRY}, bytes(9)), r"must have [\d,]+ bytes, but has"),
        (safetensors({"w": ENTRY})[:20], "truncated or not a safetensors file"),
    ],
)
def test_damaged_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(IncompatibleCheckpoint, match=rf"a\.safetensors .*{message}"):
        check_weights(tmp_path)


def test_every_file_of_the_index_must_be_there(tmp_path: Path) -> None:
    names = ["a.safetensors", "b.safetensors"]
    for name in names:
        (tmp_path / name).write_bytes(safetensors({"w": ENTRY}))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": names[0], "y": names[1]}}), encoding="utf-8")
    check_weights(tmp_path)
    (tmp_path / names[1]).unlink()
    with pytest.raises(IncompatibleCheckpoint, match=r"lacks the weight files b\.safetensors"):
        check_weights(tmp_path)
    index.write_text("{}", encoding="utf-8")
    with pytest.raises(IncompatibleCheckpoint, match="not a valid index"):
        check_weights(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(IncompatibleCheckpoint, match=r"holds no \*\.safetensors weights"):
        check_weights(tmp_path)
