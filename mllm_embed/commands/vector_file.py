"""Vectors on disk: finished parts beside the output while a run is under way, then the output, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllm_embed.commands.rows import Row
from mllm_embed.errors import InvalidInput
from mllm_embed.types import Embedding

FORMATS = (".parquet", ".npy", ".jsonl")
_SETTINGS = "settings.json"


class PartStore:
    """The folder `OUTPUT.partial` of finished rows, so that a killed run goes on where it was.

    Args:
        output: the file that the run is to make.
        settings: what decides the vectors; a folder made under other settings is refused. With `multivector` or
            `lexical` among them, these are written too.

    Raises:
        InvalidInput: an unknown file format, one that holds no more than vectors, or parts that were made under other
            settings.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        if output.suffix not in FORMATS:
            raise InvalidInput(f"the output must end in {', '.join(FORMATS)}, but is {output.name}")
        self._others = [name for name in ("multivector", "lexical") if settings.get(name)]
        if output.suffix == ".npy" and self._others:
            raise InvalidInput(f"{output.name} holds vectors alone: write words and multivectors to .parquet or .jsonl")
        self._output = output
        self._folder = output.with_name(output.name + ".partial")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check(dict(settings))

    def _check(self, settings: dict[str, Any]) -> None:
        file = self._folder / _SETTINGS
        if not file.exists() or not self._parts():
            _write(file, lambda temporary: temporary.write_text(json.dumps(settings, indent=2), encoding="utf-8"))
            return
        made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if changed := sorted(key for key in made | settings if made.get(key) != settings.get(key)):
            key = changed[0]
            raise InvalidInput(
                f"{self._folder} holds an unfinished run with {key} {made.get(key)!r}, but now it is "
                f"{settings.get(key)!r}: delete that folder to start anew, or choose another output"
            )

    def finished(self) -> set[str]:
        """Return the keys of the rows that are done."""
        return {key for part in self._parts() for key in pq.read_table(part, columns=["key"])["key"].to_pylist()}

    def append(self, done: Sequence[tuple[Row, Embedding]]) -> None:
        """Keep finished rows and what they gave."""
        rows, embeddings = zip(*done, strict=True)
        table = pa.table(
            {
                "key": [row.key for row in rows],
                "id": [row.id for row in rows],
                "text": pa.array([row.text for row in rows], pa.string()),
                "image": pa.array([row.image for row in rows], pa.string()),
                "vector": _matrix([embedding.vector for embedding in embeddings]),
                **{_COLUMNS[name]: _WRITERS[name](embeddings) for name in self._others},
            }
        )
        number = len(self._parts())
        _write(self._folder / f"{number:06d}.parquet", lambda temporary: pq.write_table(table, temporary))

    def finish(self, rows: Sequence[Row]) -> int:
        """Write the output with those of `rows` that are done, in their order, and remove the parts.

        Returns:
            how many rows the output has.
        """
        parts = [pq.read_table(part) for part in self._parts()]
        if not parts:
            shutil.rmtree(self._folder)
            return 0
        table = pa.concat_tables(parts)
        places = pc.index_in(pa.array([row.key for row in rows]), value_set=table["key"].combine_chunks()).drop_null()
        _write_table(table.take(places).drop_columns("key"), self._output)
        shutil.rmtree(self._folder)
        return len(places)

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))


def _matrix(vectors: Sequence[NDArray[np.float32]]) -> pa.Array:
    """Return vectors of one width, in the rows of as many arrays, shape [D] or [N, D], as they come."""
    matrix = np.concatenate([vector.reshape(-1, vector.shape[-1]) for vector in vectors])
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _multivectors(embeddings: Sequence[Embedding]) -> pa.Array:
    found = [one.multivector for one in embeddings if one.multivector is not None]
    return pa.ListArray.from_arrays(np.cumsum([0, *map(len, found)], dtype=np.int32), _matrix(found))


def _words(embeddings: Sequence[Embedding]) -> pa.Array:
    found = [list((one.lexical or {}).items()) for one in embeddings]
    return pa.array(found, pa.map_(pa.string(), pa.float32()))


_COLUMNS = {"multivector": "multivector", "lexical": "words"}
"""Outputs beside the vector, and the columns that hold them."""
_WRITERS = {"multivector": _multivectors, "lexical": _words}


def _write_table(table: pa.Table, output: Path) -> None:
    if output.suffix == ".parquet":
        _write(output, lambda temporary: pq.write_table(table, temporary))
    elif output.suffix == ".jsonl":
        _write(output, lambda temporary: _write_lines(table, temporary))
    else:
        ids = "".join(f"{row_id}\n" for row_id in table["id"].to_pylist())
        _write(output.with_suffix(".ids.txt"), lambda temporary: temporary.write_text(ids, encoding="utf-8"))
        _write(output, lambda temporary: _write_matrix(table, temporary))


def _write_lines(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for batch in table.to_batches():
            for record in batch.to_pylist():
                filled = {key: value for key, value in record.items() if value is not None}
                if "words" in filled:
                    filled["words"] = dict(filled["words"])  # a map comes as its pairs
                stream.write(json.dumps(filled, ensure_ascii=False) + "\n")


def _write_matrix(table: pa.Table, path: Path) -> None:
    vectors = table["vector"].combine_chunks()
    matrix = vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    with path.open("wb") as stream:
        np.save(stream, matrix)


def _write(path: Path, write: Any) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: readers see the whole file or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
