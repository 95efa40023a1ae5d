"""A recipe's `data.files` entry -> a task of the mixture."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_embed.model_dir import file_sha256
from mllm_embed.tasks import Task
from mllm_embed.types import Text
from mllm_embed_training.data_files.schemas import SCHEMAS, Fields, ReadPicture, read_picture
from mllm_embed_training.data_files.stores import find_files, open_rows
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.examples import Dialogue, Example, ExampleTask


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes an example of a row."""

    schema: str
    picture: ReadPicture
    task: Task
    negatives: int | None

    def __call__(self, row: Any, rng: random.Random) -> Example:
        fields: Fields = SCHEMAS[self.schema](row, self.picture, rng)
        negatives, scores = fields.negatives, fields.scores
        if self.negatives is not None and len(negatives) > self.negatives:
            chosen = rng.sample(range(len(negatives)), self.negatives)
            negatives = tuple(negatives[place] for place in chosen)
            if len(scores) == 1 + len(fields.negatives):
                scores = (scores[0], *(scores[1 + place] for place in chosen))
        positive, *also = fields.positives
        task = fields.instructions(self.task)
        return Example(fields.query, positive, task, negatives, tuple(also), fields.grades, scores)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Makes a dialogue of a row: the query is shown, its instruction asked, the first positive answered."""

    schema: str
    picture: ReadPicture
    task: Task

    def __call__(self, row: Any, rng: random.Random) -> Dialogue:
        fields: Fields = SCHEMAS[self.schema](row, self.picture, rng)
        (answer, *more) = fields.positives[0].content
        if more or not isinstance(answer, Text):
            raise CorruptRow("an answer to learn must be a text")
        asked = fields.instructions(self.task).query
        return Dialogue((*fields.query.content, Text(asked)), answer.text)


def answer_task(path: str, *, schema: str, task: Task, images: Path | None, cache: Path) -> ExampleTask[Dialogue]:
    """Open files as dialogues whose answers are learned; see `file_task`.

    Raises:
        DataFileError: no such file, an unknown format, or no rows.
    """
    root = images or find_files(path)[0].parent
    return ExampleTask(open_rows(path, cache), _Asker(schema, read_picture(root), task))


def file_task(
    path: str, *, schema: str, task: Task, images: Path | None, negatives: int | None, cache: Path
) -> ExampleTask[Example]:
    """Open files as one task of the mixture.

    Args:
        path: a file or a glob pattern, see `open_rows`.
        schema: one of `SCHEMAS`.
        task: instructions of rows that give none.
        images: folder that picture paths are relative to; default: the first file's.
        negatives: at most so many of a row's negatives, drawn anew each time; None takes all.
        cache: folder for derived files.

    Raises:
        DataFileError: no such file, an unknown format, or no rows.
    """
    root = images or find_files(path)[0].parent
    return ExampleTask(open_rows(path, cache), _Maker(schema, read_picture(root), task, negatives), _answer)


def _answer(row: Any) -> str:
    """Name a row's first answer without opening pictures: a picture is called by its path, or by its bytes' hash."""
    positives = row.get("positives")
    named = [positives[0] if positives else row.get(key) for key in ("positive", "pos_text", "pos_image_path", "txt")]
    return json.dumps(named, sort_keys=True, default=lambda data: hashlib.sha256(data).hexdigest())


def file_checksums(path: str) -> dict[str, str]:
    """Return the SHA-256 of every file that a path or pattern names, by file name."""
    return {str(file): file_sha256(file) for file in find_files(path)}
