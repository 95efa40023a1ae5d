"""Reads the files of public data sets: records with the fields of a schema, pictures and clips that are there."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.public_readers import READERS, Record, Spill
from mllm_embed.model_dir import file_sha256
from mllm_embed.types import Image

FRAMES = 8
"""Frames of a clip that MMEB-V2 and most others are measured with."""
_PICTURES = (".jpg", ".jpeg", ".png")
_SHOWN = 20
_UNREADABLE = (ValueError, OSError, EOFError, zlib.error)

Strings = TypeVar("Strings", dict[str, str], list[str])


class PublicFolder:
    """One folder as its makers publish it.

    Problems are collected, so that all of them are said at once.

    Args:
        path: the folder.
        name: of the set, where the suite does not give one; by default the folder's.
        frames: the most frames of a clip that are used.
        only: names of the tasks that are wanted; empty means all.
    """

    def __init__(self, path: Path, *, name: str | None = None, frames: int = FRAMES, only: Sequence[str] = ()) -> None:
        self.path = path
        self.name = name or path.name
        self.absent: list[str] = []
        self._frames = frames
        self._only = frozenset(only)
        self._spill = Spill()
        self._used: set[Path] = set()
        self._problems: list[str] = []

    def wants(self, task: str) -> bool:
        """Whether a task is asked for; what is not wanted need not be read."""
        return not self._only or task in self._only

    def unknown(self, tasks: Sequence[str]) -> list[str]:
        """Return the names of wanted tasks that are none of these."""
        return sorted(self._only.difference(tasks))

    def present(self, places: Mapping[str, str]) -> list[str]:
        """Return the wanted names of sets that are there.

        The others are a problem if they were asked for by name, else they are only noted as absent.

        Args:
            places: names of sets, and a pattern that their files or folder match.
        """
        there = []
        for name in filter(self.wants, places):
            if any(self.path.glob(places[name])):
                there.append(name)
            elif self._only:
                self.problem(f"no {places[name]}, where {name} should be")
            else:
                self.absent.append(name)
        return there

    def records(
        self, file: str, fields: Sequence[str], *, optional: Sequence[str] = (), pictures: Sequence[str] = ()
    ) -> list[Record]:
        """Return the records of a file; those that lack a field are a problem.

        Args:
            file: a JSON list, JSON lines (perhaps gzipped) or parquet.
            fields: that every record must have.
            optional: further fields that may be there; of parquet files no other columns are read.
            pictures: those among the fields that hold encoded pictures, which become paths.
        """
        if not (path := self._there(file)):
            return []
        if path.suffix not in READERS:
            self.problem(f"{file} is neither JSON nor parquet")
            return []
        try:
            found = READERS[path.suffix](path, (*fields, *optional), pictures, self._spill)
        except _UNREADABLE as error:
            self.problem(
                f"{file} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            )
            return []
        if absent := [field for field in fields if found and all(field not in record for record in found)]:
            self.problem(f"{file} has no {', '.join(absent)}")
            return []
        complete = []
        for place, record in enumerate(found):
            if missing := [field for field in fields if record.get(field) is None]:
                self.problem(f"{file}, record {place} lacks {', '.join(missing)}")
            else:
                complete.append(record)
        return complete

    def mapping(self, file: str) -> dict[str, str]:
        """Return a JSON object of strings."""
        return self._strings(file, dict, "object")

    def names(self, file: str) -> list[str]:
        """Return a JSON list of strings."""
        return self._strings(file, list, "list")

    def lines(self, file: str) -> list[str]:
        """Return the lines of a text file, without white space around them."""
        if not (path := self._there(file)):
            return []
        # Not splitlines, which also cuts at characters that captions contain, such as U+2028.
        return [line.strip() for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]

    def files(self, pattern: str) -> list[str]:
        """Return the names of the files that match a pattern, sorted."""
        found = sorted(str(path.relative_to(self.path)) for path in self.path.glob(pattern))
        if not found:
            self.problem(f"no file {pattern}")
        return found

    def image(self, file: str) -> Image:
        """Return a picture by its name in the folder; a missing one is a problem."""
        path = self.path / file
        if not path.is_file():
            self.problem(f"no picture {file}")
        return Image(path)

    def image_of(self, stem: str) -> Image:
        """Return a picture by its name without the ending."""
        names = [name for ending in _PICTURES if (self.path / (name := f"{stem}{ending}")).is_file()]
        return self.image(names[0] if names else f"{stem}{_PICTURES[0]}")

    def clip(self, folder: str) -> tuple[Image, ...]:
        """Return the frames of a clip that lie as pictures in a folder: all, or so many, evenly spaced.

        The first and the last are among them; places in between are rounded down, as in VLM2Vec's evaluation.
        """
        path = self.path / folder
        found = [file for file in path.iterdir() if file.suffix.lower() in _PICTURES] if path.is_dir() else []
        if not found:
            self.problem(f"no frames in {folder}")
            return (Image(path),)
        found.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)])
        if len(found) > self._frames:
            found = [found[place] for place in np.linspace(0, len(found) - 1, self._frames, dtype=int)]
        return tuple(map(Image, found))

    def unique(self, names: Iterable[object], what: str) -> None:
        """Note a problem for every name that occurs twice."""
        seen: set[object] = set()
        for name in names:
            if name in seen:
                self.problem(f"{what} {name} occurs twice")
            seen.add(name)

    def problem(self, text: str) -> None:
        """Note what is wrong."""
        self._problems.append(text)

    def check(self) -> None:
        """Raise `EvaluationError` with every problem found so far, the first few of each run of many."""
        if self._problems:
            distinct = list(dict.fromkeys(self._problems))
            more = f"; and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
            raise EvaluationError(f"{self.path} cannot be evaluated on: " + "; ".join(distinct[:_SHOWN]) + more)

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file of records that was read; pictures are in the digests of parts."""
        return {str(path.relative_to(self.path)): file_sha256(path) for path in sorted(self._used)}

    def _there(self, file: str) -> Path | None:
        path = self.path / file
        if not path.is_file():
            self.problem(f"no file {file}")
            return None
        self._used.add(path)
        return path

    def _strings(self, file: str, kind: type[Strings], word: str) -> Strings:
        if not (path := self._there(file)):
            return kind()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        values = found.values() if isinstance(found, dict) else found
        if isinstance(found, kind) and all(isinstance(value, str) for value in values):
            return found
        self.problem(f"{file} is no {word} of strings")
        return kind()
