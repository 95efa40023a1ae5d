"""`mllm-embed eval`: measure a model on the held-out suite, and put measured models side by side."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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
        str,
        typer.Option(
            help="A model directory or hub name, st:NAME (of sentence-transformers), or 'pixels' (a baseline)."
        ),
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
    html: Annotated[
        Path | None, typer.Option(help="Also write one HTML page: bars, retrievals, misses, similarities, a map.")
    ] = None,
    random_weights: Annotated[bool, typer.Option(help="Measure the same architecture with random weights.")] = False,
    url: Annotated[
        str | None, typer.Option(help="Measure what this OpenAI-compatible server runs; --model is its name there.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="MLLM_EMBED_API_KEY", help="Bearer token for --url.")] = None,
    dialect: Annotated[
        str | None, typer.Option(help="How --url takes items: mllm-embed, vllm, or openai (texts only).")
    ] = None,
    backend: Annotated[str, typer.Option(help="transformers, vllm or auto.")] = "transformers",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")] = "float32",
    cache_dir: Annotated[Path | None, typer.Option(help="Folder for vectors, so that a killed run resumes.")] = None,
    cache: Annotated[bool, typer.Option(help="Keep vectors on disk.")] = True,
) -> None:
    """Measure a model on the mini-mmeb suite: Hit@1 (the headline), nDCG and MRR, task by task.

    Data is a folder of parquet files, see docs/evaluation.md. The table of the run is printed, the report is written.
    """
    from mllm_embed.evaluation.data_folder import find_data
    from mllm_embed.evaluation.pools import Selection
    from mllm_embed.evaluation.run import RunOptions

    options = RunOptions(
        data=find_data(data),
        tasks=_names(tasks),
        selection=Selection(prefix=split_prefix, pool_limit=limit_pool, train_queries=train_queries),
        dimensions=dimensions,
        cache=_cache(cache_dir) if cache else None,
        name=name,
    )
    if url is not None:
        opened = partial(
            _open_endpoint, url=url, model=model, api_key=api_key, dialect=dialect, random_weights=random_weights
        )
    else:
        opened = partial(
            _open_encoder, model=model, backend=backend, precision=precision, random_weights=random_weights
        )
    _measure(options, opened, out, html)


@evaluate.command("public")
def public(
    suite: Annotated[
        str,
        typer.Argument(
            help="mmeb, mmeb-v2, flickr30k, coco, urban1k, sharegpt4v, sugarcrepe, winoground, cirr, fashioniq, circo, "
            "xtd, wit, vidore, mrmr or sts."
        ),
    ],
    *,
    data: Annotated[
        str, typer.Option(help="Folder of the set, as its makers publish it, or hub:ORG/NAME, perhaps with @REVISION.")
    ],
    out: Annotated[Path, typer.Option(help="The JSON report to write.")],
    model: Annotated[
        str, typer.Option(help="A model directory or hub name, or st:NAME (a model of sentence-transformers).")
    ] = BUILT_IN,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated task names; default: all that are there.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask so many queries of each task only.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Use at most so many frames of a clip.")] = 8,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Cut vectors to this width (Matryoshka).")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in reports; default: its own.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one HTML page.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Measure what this OpenAI-compatible server runs; --model is its name there.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="MLLM_EMBED_API_KEY", help="Bearer token for --url.")] = None,
    dialect: Annotated[
        str | None, typer.Option(help="How --url takes items: mllm-embed, vllm, or openai (texts only).")
    ] = None,
    backend: Annotated[str, typer.Option(help="transformers, vllm or auto.")] = "transformers",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")] = "float32",
    cache_dir: Annotated[Path | None, typer.Option(help="Folder for vectors, so that a killed run resumes.")] = None,
    cache: Annotated[bool, typer.Option(help="Keep vectors on disk.")] = True,
) -> None:
    """Measure a model on a public test set in the files that its makers publish.

    What each suite reads is in docs/evaluation.md. The table of the run is printed, the report is written.
    """
    from mllm_embed.evaluation.pools import Selection
    from mllm_embed.evaluation.public_hub import locate
    from mllm_embed.evaluation.run import RunOptions

    located = locate(data)
    options = RunOptions(
        suite=suite,
        data=located.path,
        data_name=located.name,
        tasks=_names(tasks),
        frames=frames,
        selection=Selection(pool_limit=limit),
        dimensions=dimensions,
        cache=_cache(cache_dir) if cache else None,
        name=name,
    )
    if url is not None:
        opened = partial(_open_endpoint, url=url, model=model, api_key=api_key, dialect=dialect)
    else:
        opened = partial(_open_encoder, model=model, backend=backend, precision=precision)
    _measure(options, opened, out, html)


def _names(tasks: str | None) -> list[str]:
    return [part.strip() for part in (tasks or "").split(",") if part.strip()]


def _cache(folder: Path | None) -> Path:
    from mllm_embed.evaluation.vector_store import default_cache

    return folder or default_cache()


def _measure(options: Any, opened: Callable[[ExitStack], Any], out: Path, html: Path | None) -> None:
    """Read the data, open what is measured, measure it, write and print."""
    from mllm_embed.evaluation.html_page import check_jinja
    from mllm_embed.evaluation.run import page_of_run, read_suite, run, tell_failures
    from mllm_embed.evaluation.scores_page import markdown

    started = time.perf_counter()
    if html is not None:
        check_jinja()  # now, and not after minutes of embedding
    suite = read_suite(options)
    with ExitStack() as stack:
        finished = run(opened(stack), suite, options, out=out, progress=_progress(), started=started)
    report = finished.report
    if html is not None:
        _write(html, page_of_run(finished, options.dimensions))
    print(markdown([report]))
    times = report["timing"]
    print(f"{out}: {times['items']:,} items, {times['embedded']:,} embedded now, {times['items_per_s']} per second")
    if failed := report["failed"]:
        raise EvaluationError(
            f"{len(failed)} tasks could not be measured: {tell_failures(failed)}; {out} has the others"
        )


@evaluate.command("report")
def report_command(
    files: Annotated[list[Path], typer.Argument(help="JSON reports of `mllm-embed eval mini-mmeb`.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Write the Markdown page here instead of printing it.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML page (without pictures) instead.")] = None,
    details: Annotated[bool, typer.Option(help="Add the tables of languages, hubs, parts and slices.")] = True,
) -> None:
    """Put several reports side by side on one Markdown page: docs/scores.md is one.

    Scores, means, what was measured and how, robustness, languages, diagnostics. Reports that were not measured on the
    same data, pools and queries are refused.
    """
    from mllm_embed.evaluation.html_page import html_page
    from mllm_embed.evaluation.report import read_report
    from mllm_embed.evaluation.scores_page import scores_page

    reports = [read_report(file) for file in files]
    if html is not None:
        _write(html, html_page(reports))
    if out is not None or html is None:
        command = " ".join(
            ["mllm-embed eval report", *(file.name for file in files), f"--out {out.name if out else 'PAGE'}"]
        )
        _show(scores_page(reports, command=command, details=details), out)


@evaluate.command("compare")
def compare_command(
    one: Annotated[Path, typer.Argument(help="JSON report of one run.")],
    other: Annotated[Path, typer.Argument(help="JSON report of the other.")],
    *,
    metric: Annotated[str, typer.Option(help="hit1, hit5, ndcg5, ndcg10, mrr, recall10, map or r_precision.")] = "hit1",
    out: Annotated[Path | None, typer.Option(help="Write the Markdown here instead of printing it.")] = None,
) -> None:
    """Say which differences between two runs are more than chance: paired 95 % intervals and p-values.

    Both files of ranks must lie beside the reports. Runs on other data, pools or queries are refused.
    """
    from mllm_embed.evaluation.compare import compare, comparison_table
    from mllm_embed.evaluation.query_ranks import ranks_file, read_ranks
    from mllm_embed.evaluation.report import read_report

    reports = [read_report(file) for file in (one, other)]
    ranks = [
        read_ranks(ranks_file(file), report["ranks_sha256"]) for file, report in zip((one, other), reports, strict=True)
    ]
    _show(comparison_table(reports[0], reports[1], compare(reports, ranks, metric), metric), out)


@evaluate.command("export")
def export_command(
    report: Annotated[Path, typer.Argument(help="JSON report of a complete run.")],
    *,
    shape: Annotated[str, typer.Option("--as", help="mmeb (its leaderboard), mteb (a file per task) or model-card.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
) -> None:
    """Write a report in the shape of a leaderboard or of a model card's `model-index`."""
    from mllm_embed.evaluation.leaderboards import export_report
    from mllm_embed.evaluation.report import read_report

    for name, content in export_report(read_report(report), shape).items():
        text = content if isinstance(content, str) else json.dumps(content, indent=4, ensure_ascii=False) + "\n"
        _write(out / name, text)
        print(out / name)


def _show(text: str, out: Path | None) -> None:
    if out is None:
        print(text)
    else:
        _write(out, text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _open_endpoint(
    stack: ExitStack, *, url: str, model: str, api_key: str | None, dialect: str | None, random_weights: bool = False
) -> Any:
    from mllm_embed.evaluation.endpoint import DIALECTS, EndpointEncoder

    if random_weights:
        raise EvaluationError("--random-weights needs the weights at hand; leave it out, or leave out --url")
    known = {name: name for name in DIALECTS}
    if dialect is not None and dialect not in known:
        raise EvaluationError(f"dialect must be one of {', '.join(DIALECTS)}, but is {dialect!r}")
    name = None if model == BUILT_IN else model
    chosen = None if dialect is None else known[dialect]
    return stack.enter_context(EndpointEncoder(url, model=name, api_key=api_key, dialect=chosen))


def _open_encoder(stack: ExitStack, *, model: str, backend: str, precision: str, random_weights: bool = False) -> Any:
    from mllm_embed.evaluation.encoders import PIXELS, EmbedderEncoder, PixelEncoder
    from mllm_embed.evaluation.sentence_transformer import PREFIX, SentenceTransformerEncoder

    if random_weights and (model == PIXELS or model.startswith(PREFIX)):
        raise EvaluationError(f"--random-weights copies one of our model directories, and {model} is none")
    if model == PIXELS:
        return PixelEncoder()
    if model.startswith(PREFIX):
        return SentenceTransformerEncoder(model.removeprefix(PREFIX), precision=precision)
    from mllm_embed.embedder import Embedder

    path: str | Path = model
    if random_weights:
        from mllm_embed.evaluation.random_weights import write_random_copy

        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mllm-embed-")))
        write_random_copy(open_model_dir(model), path)
    embedder = stack.enter_context(Embedder.load(path, backend=backend, precision=precision))  # type: ignore[arg-type]
    return EmbedderEncoder(embedder, precision=precision)


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
