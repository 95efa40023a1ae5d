"""The weight files of a model directory: whether they are whole, from their headers, and what lies beside them."""

from __future__ import annotations

import json
import shutil
import struct
from typing import TYPE_CHECKING

from mllm_embed.errors import IncompatibleCheckpoint

if TYPE_CHECKING:
    from pathlib import Path

_INDEX = "model.safetensors.index.json"
_COMPANIONS = (".json", ".txt", ".jinja", ".model")
_LFS_POINTER = b"version https://git-lfs"
_LONGEST_HEADER = 100_000_000
"""The limit of the safetensors format itself."""


def check_weights(folder: Path) -> None:
    """Check that the folder holds weights, that none of several files is absent, and that each is whole.

    Raises:
        IncompatibleCheckpoint: otherwise, with the file's name.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise IncompatibleCheckpoint(f"{folder} holds no *.safetensors weights")
    if (folder / _INDEX).exists():
        try:
            needed = set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IncompatibleCheckpoint(f"{folder / _INDEX} is not a valid index of weights: {error}") from None
        if absent := sorted(needed - {file.name for file in files}):
            raise IncompatibleCheckpoint(f"{folder} lacks the weight files {', '.join(map(str, absent))}")
    for file in files:
        check_safetensors(file)


def copy_companions(source: Path, target: Path) -> None:
    """Copy what engines read beside the weights: configurations, tokenizer, chat template; not what `target` has.

    An index of the source's weight files is left behind: other weights are written in other files.
    """
    for file in source.iterdir():
        belongs = file.suffix in _COMPANIONS and not file.name.endswith(".index.json")
        if belongs and not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)


def weight_names(folder: Path) -> set[str]:
    """Return the names of all weights in a folder, from the headers of its files.

    Raises:
        IncompatibleCheckpoint: as `check_safetensors`.
    """
    return {name for file in folder.glob("*.safetensors") for name in check_safetensors(file)}


def check_safetensors(file: Path) -> set[str]:
    """Check that a safetensors file has a readable header and all the bytes that the header promises.

    Returns:
        the names of its weights.

    Raises:
        IncompatibleCheckpoint: it is no such file, a Git LFS pointer, or truncated.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if _LFS_POINTER.startswith(start) and start:
            raise IncompatibleCheckpoint(f"{file} is a Git LFS pointer, not the weights: run `git lfs pull`")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _LONGEST_HEADER):
            raise IncompatibleCheckpoint(f"{file} is truncated or not a safetensors file")
        header = stream.read(length)
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        promised = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise IncompatibleCheckpoint(f"{file} is not a safetensors file: its header cannot be read") from None
    if not tensors:
        raise IncompatibleCheckpoint(f"{file} holds no weights")
    if size != 8 + length + promised:
        raise IncompatibleCheckpoint(f"{file} must have {8 + length + promised:,} bytes, but has {size:,}")
    return set(tensors)
