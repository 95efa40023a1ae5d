"""Sides of rows by their hashes: what is equal is known without keeping pictures in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_embed.types import Content
from mllm_embed_training.data_files.schemas import ReadPicture, exact_bytes, read_picture
from mllm_embed_training.data_files.stores import Rows
from mllm_embed_training.examples import Side

SidesOf = Callable[[Mapping[str, Any], ReadPicture], Sequence[Side]]
"""What a row is made of, in an order that never changes."""


@dataclass(frozen=True, slots=True, eq=False)
class RowFile:
    """An opened file of rows.

    Attributes:
        path: as the user named it.
        rows: read when asked for.
        images: folder that picture paths are relative to.
        sides: takes a row apart.
    """

    path: Path
    rows: Rows
    images: Path
    sides: SidesOf

    def items(self, row: int, sides: Sequence[Side]) -> tuple[Item, ...]:
        """Hash all sides of a row, which `self.sides` gave."""
        return tuple(Item(self, row, place, side.key, exact_key(side.content)) for place, side in enumerate(sides))


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One side of one row, read again when its content is needed.

    Attributes:
        file: where it stands.
        row: index of the row in it.
        place: which of the row's sides it is.
        key: equal for items that are the same to a reader: texts but for case and spacing, media by their bytes.
        exact: equal for items that are the same to a model.
    """

    file: RowFile
    row: int
    place: int
    key: str
    exact: str

    def content(self, picture: ReadPicture | None = None) -> tuple[Content, ...]:
        """Read the content; `picture` says what becomes of pictures, by default their bytes."""
        return self.file.sides(self.file.rows[self.row], picture or read_picture(self.file.images))[self.place].content


def exact_key(content: Sequence[Content]) -> str:
    """Hash content as it is: every letter of texts, every byte of media; of what is on the web, the address."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(hashlib.sha256(exact_bytes(part)).digest())
    return digest.hexdigest()
