"""`mllm-embed eval`: measure a model on the held-out suite, and put measured models side by side."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.model_dir import BUILT_IN, open_model_dir


def _group(function: Callable[[], None]) -> typer.Typer:
    """Turn a function into a group of commands that its docstring explains."""
    return typer.Typer(help=function.__doc__, no_args_is_help=True)


@_group
def evaluate() -> None:
    """Measure a model on held-out data, and put measured models side by side."""


@evaluate.command("mini-mmeb")
def mini_mmeb(
    *,
    out: Annotated[Path, typer.Option(help="The JSON report to write.")],
    model: Annotated[
        str, typer.Option(help="A model directory or hub name, or 'pixels' (the pixel baseline).")
    ] = BUILT_IN,
    data: Annotated[Path | None, typer.Option(help="Folder of the data; default: $MLLM_EMBED_DATA.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated task names; default: all.")] = None,
    split_prefix: Annotated[str, typer.Option(help="Splits that begin with it are held out.")] = "test",
    limit_pool: Annotated[int | None, typer.Option(min=2, help="Cut every pool to this size: smoke runs only.")] = None,
    train_queries: Annotated[
        int, typer.Option(min=0, help="Ask with so many train rows per pool too, to show seen beside unseen.")
    ] = 100,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Cut vectors to this width (Matryoshka).")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in reports; default: its own.")] = None,
    random_weights: Annotated[bool, typer.Option(help="Measure the same architecture with random weights.")] = False,
    backend: Annotated[str, typer.Option(help="transformers, vllm or auto.")] = "transformers",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")] = "float32",
    cache_dir: Annotated[Path | None, typer.Option(help="Folder for vectors, so that a killed run resumes.")] = None,
    cache: Annotated[bool, typer.Option(help="Keep vectors on disk.")] = True,
) -> None:
    """Measure a model on the mini-mmeb suite: Hit@1 (the headline), nDCG and MRR, task by task.

    Data is a folder of parquet files, see docs/evaluation.md. The table of the run is printed, the report is written.
    """
    from mllm_embed.evaluation.data_folder import DataFolder, find_data
    from mllm_embed.evaluation.mini_mmeb import TASK_NAMES, build_tasks
    from mllm_embed.evaluation.pools import Selection
    from mllm_embed.evaluation.report import make_report, markdown, write_report
    from mllm_embed.evaluation.runner import embed_all, score_tasks, supported
    from mllm_embed.evaluation.vector_store import VectorStore, default_cache

    started = time.perf_counter()
    folder = DataFolder(find_data(data))
    chosen = TASK_NAMES if tasks is None else [part.strip() for part in tasks.split(",") if part.strip()]
    selection = Selection(prefix=split_prefix, pool_limit=limit_pool, train_queries=train_queries)
    suite = build_tasks(folder, selection, chosen)
    with ExitStack() as stack:
        encoder = _open_encoder(stack, model, backend=backend, precision=precision, random_weights=random_weights)
        suite = supported(suite, encoder)
        description = encoder.describe()
        _check_width(dimensions, description)
        store = VectorStore((cache_dir or default_cache()) if cache else None, description)
        ready = time.perf_counter()
        with _progress() as progress:
            counts = embed_all(suite, encoder, store, progress)
        embedded = time.perf_counter()
        results = score_tasks(suite, store, dimensions=dimensions)
    settings = {
        "split_prefix": split_prefix,
        "limit_pool": limit_pool,
        "train_queries": train_queries,
        "dimensions": dimensions,
        "bootstrap_seed": 0,
    }
    shown = {**description, "name": name or description["name"]}
    report = make_report(model=shown, settings=settings, checksums=folder.checksums(), results=results)
    report["timing"] = _timing(started, ready, embedded, counts)
    write_report(out, report)
    print(markdown([report]))
    rate = report["timing"]["items_per_s"]
    print(f"{out}: {counts['items']:,} items, {counts['embedded']:,} embedded now, {rate} per second")


@evaluate.command("report")
def report_command(
    files: Annotated[list[Path], typer.Argument(help="JSON reports of `mllm-embed eval mini-mmeb`.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Write the Markdown here instead of printing it.")] = None,
    details: Annotated[bool, typer.Option(help="Add the table of parts and slices.")] = True,
) -> None:
    """Put several reports side by side as a Markdown table; refuse those that were not measured on the same data."""
    from mllm_embed.evaluation.report import markdown, read_report

    text = markdown([read_report(file) for file in files], details=details)
    if out is None:
        print(text)
    else:
        out.write_text(text, encoding="utf-8")


def _open_encoder(stack: ExitStack, model: str, *, backend: str, precision: str, random_weights: bool) -> Any:
    from mllm_embed.evaluation.encoders import PIXELS, EmbedderEncoder, PixelEncoder

    if model == PIXELS:
        if random_weights:
            raise EvaluationError(f"{PIXELS} has no weights; leave out --random-weights or name a model")
        return PixelEncoder()
    from mllm_embed.embedder import Embedder

    path: str | Path = model
    if random_weights:
        from mllm_embed.evaluation.random_weights import write_random_copy

        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mllm-embed-")))
        write_random_copy(open_model_dir(model), path)
    embedder = stack.enter_context(Embedder.load(path, backend=backend, precision=precision))  # type: ignore[arg-type]
    return EmbedderEncoder(embedder, precision=precision)


def _check_width(dimensions: int | None, description: dict[str, Any]) -> None:
    from mllm_embed.vectors import check_dimensions

    if "full_dimensions" in description:
        check_dimensions(dimensions, int(description["full_dimensions"]))
    elif dimensions is not None:
        raise EvaluationError(f"--dimensions does not apply to {description['name']}")


@contextmanager
def _progress() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: Sequence[Any] = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        line = bar.add_task("embedding", total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def _timing(started: float, ready: float, embedded: float, counts: dict[str, int]) -> dict[str, Any]:
    seconds = embedded - ready
    return {
        "prepare_s": round(ready - started, 2),
        "embed_s": round(seconds, 2),
        "score_s": round(time.perf_counter() - embedded, 2),
        **counts,
        "items_per_s": round(counts["embedded"] / seconds, 1) if seconds > 0 else 0.0,
    }
