"""The run behind `mllm-embed mine`, from files to the output folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from mllm_embed.evaluation.vector_store import VectorStore, default_cache
from mllm_embed.tasks import Task
from mllm_embed_training.errors import DataFileError
from mllm_embed_training.mining.dataset import (
    Fault,
    Pair,
    open_corpus,
    open_pairs,
    read_corpus,
    read_pairs,
    refuse,
)
from mllm_embed_training.mining.items import Item
from mllm_embed_training.mining.miner import Corpus, mine, usable, wanted_vectors
from mllm_embed_training.mining.outputs import check_free, whole_folder, write_dataset
from mllm_embed_training.mining.report import make_report, write_report
from mllm_embed_training.mining.rules import Rules
from mllm_embed_training.mining.vectors import AS_GIVEN, Encoding, embed_missing, read_given

_REPAIR = "Repair them, or add --skip-corrupt to go on without them"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What is read; the fields are options of the command.

    Attributes:
        dataset: file or pattern of rows with queries and positives.
        schema: field names of those rows.
        images: folder that picture paths are relative to; None takes each file's own.
        task: instructions of rows that give none.
        own_negatives: whether negatives that rows bring along are kept or forgotten.
        corpus: file or pattern of candidates; None takes the data set's positives.
        add_positives: put the data set's positives into the corpus too.
        skip_corrupt: go on without what cannot be used.
    """

    dataset: Path
    schema: str
    images: Path | None
    task: Task
    own_negatives: Literal["keep", "drop"]
    corpus: Path | None
    add_positives: bool
    skip_corrupt: bool


@dataclass(frozen=True, slots=True)
class GivenVectors:
    """Files of `mllm-embed embed`, in place of a model."""

    queries: Path
    targets: Path


class _Faults:
    """Collects what cannot be used, or raises at once, as the user wants."""

    def __init__(self, *, tolerate: bool) -> None:
        self.skipped: list[Fault] = []
        self._tolerate = tolerate

    def take(self, faults: Sequence[Fault]) -> None:
        if not self._tolerate:
            refuse(faults, "cannot be used", _REPAIR)
        self.skipped += faults


def run(
    sources: Sources,
    vectors: Encoding | GivenVectors,
    rules: Rules,
    output: Path,
    *,
    overwrite: bool = False,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Mine, write the output folder, return the report.

    Args:
        sources: what is read.
        vectors: the model, or the files that hold what a model made.
        rules: which candidates become negatives.
        output: the folder to make.
        overwrite: replace it, if it holds what mining wrote.
        cache: folder of vectors that survive a kill; None takes the user's cache folder.

    Raises:
        DataFileError: files or rows that cannot be used.
        MllmEmbedError: the model or the engine is at fault.
    """
    check_free(output, overwrite=overwrite)
    console = Console(stderr=True)
    cache = cache or default_cache().with_name("mining")
    faults = _Faults(tolerate=sources.skip_corrupt)
    pairs, corpus = _read(sources, given=isinstance(vectors, GivenVectors), faults=faults, cache=cache, console=console)
    if isinstance(vectors, GivenVectors):
        store = VectorStore(None, {})
        read_given(vectors.queries, vectors.targets, wanted_vectors(pairs, corpus), store, cache)
    else:
        store = VectorStore(cache, {**vectors.describe(), **_names(sources)})
        failed = embed_missing(wanted_vectors(pairs, corpus), store, vectors, console)
        pairs, corpus, wrong = usable(pairs, corpus, failed)
        faults.take(wrong)
        _check_enough(sources, pairs, corpus)
    mined = mine(pairs, corpus, store, rules, console)
    report = make_report(mined, corpus, rules, _settings(sources, vectors, rules), faults.skipped)
    check_free(output, overwrite=overwrite)  # the run may have taken hours
    with whole_folder(output) as folder:
        write_dataset(mined, folder, output)
        write_report(report, mined, folder)
    return report


def _read(
    sources: Sources, *, given: bool, faults: _Faults, cache: Path, console: Console
) -> tuple[list[Pair], Corpus]:
    opened = open_pairs(sources.dataset, schema=sources.schema, images=sources.images, cache=cache)
    corpus_file = sources.corpus and open_corpus(sources.corpus, images=sources.images, cache=cache)
    pairs, wrong = read_pairs(opened, sources.schema, sources.task, console)
    entries: list[Item] = []
    if corpus_file:
        entries, also_wrong = read_corpus(corpus_file, console)
        wrong += also_wrong
    faults.take(wrong)
    pairs = [_adapt(pair, sources, given=given) for pair in pairs]
    positives = [item for pair in pairs for item in pair.positives]
    if corpus_file and not sources.add_positives:
        _check_inside(positives, entries, corpus_file.path)
    else:
        entries += positives
    corpus = Corpus.of(entries)
    _check_enough(sources, pairs, corpus)
    return pairs, corpus


def _adapt(pair: Pair, sources: Sources, *, given: bool) -> Pair:
    negatives = pair.negatives if sources.own_negatives == "keep" else ()
    return Pair(pair.query, pair.positives, negatives, AS_GIVEN if given else pair.task, pair.extra)


def _check_inside(positives: Sequence[Item], entries: Sequence[Item], corpus: Path) -> None:
    known = {item.key for item in entries}
    rows = dict.fromkeys((item.file.path, item.row) for item in positives if item.key not in known)
    missing = [Fault(path, row, f"a positive is not in {corpus}") for path, row in rows]
    refuse(missing, "cannot be used", "Add them to the corpus, or pass --add-positives")


def _check_enough(sources: Sources, pairs: Sequence[Pair], corpus: Corpus) -> None:
    if not pairs:
        raise DataFileError(f"{sources.dataset} has no row that can be used")
    if len(corpus.items) < 2:
        name = sources.corpus or f"the corpus, which is the positives of {sources.dataset},"
        raise DataFileError(f"{name} must have at least 2 different entries, but has {len(corpus.items)}")


def _names(sources: Sources) -> dict[str, str]:
    """Name what the vectors are of, so that vectors of other data sets are not read into memory."""
    files = {"dataset": sources.dataset, "corpus": sources.corpus}
    return {role: str(path.resolve()) for role, path in files.items() if path is not None}


def _settings(sources: Sources, vectors: Encoding | GivenVectors, rules: Rules) -> dict[str, Any]:
    chosen = {**asdict(sources), **asdict(vectors), **asdict(rules)}
    if isinstance(vectors, Encoding):
        chosen["fingerprint"] = vectors.describe()["model"]
    return {key: str(value) if isinstance(value, Path) else value for key, value in chosen.items()}
