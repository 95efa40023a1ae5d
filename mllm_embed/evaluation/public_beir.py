"""Public sets in BEIR's form (queries, corpus, judgements): ViDoRe, MRMR, and the documents of MMEB-V2."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Part, Query
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE, graded
from mllm_embed.evaluation.public_readers import Record
from mllm_embed.tasks import get_task
from mllm_embed.types import Content, EmbedInput, Image, Text

DOCUMENT_METRICS = ("ndcg5", "hit1")
"""nDCG with linear gains is what ViDoRe (Faysse et al. 2025) and MMEB-V2 report."""
NUMBERED = ("image 1", "image 2", "image 3", "image 4")
"""Columns of pictures that a text of MRMR names as `<image 1>`; its column `image` is named as `<image>`."""
_SLOT = re.compile(r"(<image(?: [1-4])?>)")


@dataclass(frozen=True, slots=True)
class MrmrSet:
    """One set of MRMR: its kind of task, the instruction of its queries, its metrics, whose candidates a query sees."""

    meta_task: str
    instruction: str
    metrics: tuple[str, ...] = ("ndcg10", "hit1")
    own_candidates: bool = False


MRMR = {
    "knowledge": MrmrSet("knowledge", "Retrieve relevant documents that help answer the question."),
    "theorem": MrmrSet("theorem", "Retrieve relevant theorems that are involved in solving the problem."),
    "traffic": MrmrSet("contradiction", "Given a traffic case, retrieve the driving rule documents that it violates."),
    "design": MrmrSet("contradiction", "Given a vehicle design, retrieve the design requirements that it violates."),
    "negation": MrmrSet(
        "contradiction",
        "Given an image, retrieve descriptions that have contradictory information with the image.",
        ("hit1",),
        own_candidates=True,
    ),
}
"""The five sets, in three kinds of tasks."""


def vidore(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """ViDoRe: questions find pages, which are pictures; how relevant a page is counts in nDCG."""
    task = get_task("document")
    part = documents(folder, "", limit, instructions=(task.query, task.target))
    folder.check()
    return [EvalTask(folder.name, "documents", (part,), HEADLINE, DOCUMENT_METRICS)]


def documents(folder: PublicFolder, root: str, limit: int | None, *, instructions: tuple[str, str]) -> Part:
    """Read questions about pages: `queries`, `corpus` and `qrels`, parquet files with BEIR's columns.

    Args:
        folder: whose problems are collected, not yet raised.
        root: where the three folders lie, empty or with a slash at its end.
        limit: of queries.
        instructions: of queries and of pages.
    """
    pages = _rows(folder, f"{root}corpus", ("corpus-id", "image"), pictures=("image",))
    asked = _rows(folder, f"{root}queries", ("query-id", "query"))
    judged = _rows(folder, f"{root}qrels", ("query-id", "corpus-id", "score"))
    folder.unique((f"{row['corpus-id']}" for row in pages), f"{root}page")
    folder.unique((f"{row['query-id']}" for row in asked), f"{root}query")
    places = {str(row["corpus-id"]): place for place, row in enumerate(pages)}
    items = {str(row["query-id"]): EmbedInput((Text(str(row["query"])),), instructions[0]) for row in asked}
    queries = _judged_queries(folder, items, judged, places, f"{root}qrels")
    candidates = tuple(EmbedInput((Image(row["image"]),), instructions[1]) for row in pages)
    chosen = hash_order(queries, lambda pair: pair[0])[:limit]
    return Part("all", tuple(query for _, query in chosen), candidates)


def mrmr(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """MRMR: expert questions of text and pictures in any order find documents of both.

    Schema: Zhang et al. 2025, the hub's `MRMRbenchmark/SET`, `query`, `corpus` and `qrels` as parquet: `id, modality,
    text, image, image 1, ...`; `category` is a slice. `vision` (a text as a picture) is not used. The folder holds one
    of the sets or a folder for each. In `negation` a query chooses among its own four, whose ids begin with its id.
    """
    if folder.name in MRMR and (folder.path / "query").is_dir():
        roots = {folder.name: ""}
    else:
        roots = {name: f"{name}/" for name in folder.present({name: f"{name}/query" for name in MRMR})}
    folder.check()
    if not roots:
        raise EvaluationError(f"{folder.path} has no set of MRMR, which are {', '.join(MRMR)}")
    tasks = [_mrmr_task(folder, name, root, limit) for name, root in roots.items()]
    folder.check()
    return tasks


def _mrmr_task(folder: PublicFolder, name: str, root: str, limit: int | None) -> EvalTask:
    known = MRMR[name]
    pictures = ("image", *NUMBERED)
    fields = ("id", "modality")
    asked = _rows(folder, f"{root}query", fields, optional=("text", "category", *pictures), pictures=pictures)
    stored = _rows(folder, f"{root}corpus", fields, optional=("text", *pictures), pictures=pictures)
    judged = _rows(folder, f"{root}qrels", ("score",), optional=("query_id", "query-id", "corpus_id", "corpus-id"))
    folder.unique((row["id"] for row in stored), f"{root}document")
    folder.unique((row["id"] for row in asked), f"{root}query")
    places = {str(row["id"]): place for place, row in enumerate(stored)}
    items = {str(row["id"]): _interleaved(folder, row, f"{root}query", known.instruction) for row in asked}
    target = get_task("document").target
    candidates = tuple(_interleaved(folder, row, f"{root}corpus", target) for row in stored)
    named = [{key.replace("_", "-"): value for key, value in row.items()} for row in judged]
    slices = {str(row["id"]): (HEADLINE, *([row["category"]] if row.get("category") else [])) for row in asked}
    own: dict[str, list[int]] = defaultdict(list)
    for document, place in places.items() if known.own_candidates else ():
        own[document.rpartition("_")[0]].append(place)
    judgements = _judged_queries(folder, items, named, places, f"{root}qrels")
    queries = tuple(
        replace(one, slices=slices[key], extras=tuple(own[key]))
        for key, one in hash_order(judgements, lambda pair: pair[0])[:limit]
    )
    part = Part("all", queries, candidates, 0 if known.own_candidates else None)
    return EvalTask(f"mrmr-{name}", known.meta_task, (part,), HEADLINE, known.metrics)


def _interleaved(folder: PublicFolder, row: Record, where: str, instruction: str) -> EmbedInput:
    """Put pictures where the text names them; those that it does not name stand before it.

    `image` holds the numbered pictures of a row as one, for models that take no more, so it is used only without them.
    """
    numbered = {f"<{name}>": row[name] for name in NUMBERED if row.get(name)}
    pictures = numbered or ({"<image>": row["image"]} if row.get("image") else {})
    pieces = [piece for piece in _SLOT.split(str(row.get("text") or "")) if piece.strip()]
    content: list[Content] = [Image(path) for slot, path in pictures.items() if slot not in pieces]
    content += [Image(pictures[piece]) if piece in pictures else Text(piece.strip()) for piece in pieces]
    if not content or ("image" in row["modality"] and not pictures):
        lacks = "picture" if content else "content"
        folder.problem(f"{where} {row['id']} has no {lacks}, but the modality {row['modality']}")
    return EmbedInput(tuple(content) or (Text(""),), instruction)


def _rows(
    folder: PublicFolder,
    place: str,
    fields: Sequence[str],
    *,
    optional: Sequence[str] = (),
    pictures: Sequence[str] = (),
) -> list[Record]:
    return [
        row
        for file in folder.files(f"{place}/*.parquet")
        for row in folder.records(file, fields, optional=optional, pictures=pictures)
    ]


def _judged_queries(
    folder: PublicFolder,
    items: Mapping[str, EmbedInput],
    judged: Iterable[Mapping[str, object]],
    places: Mapping[str, int],
    where: str,
) -> list[tuple[str, Query]]:
    """Return the queries that something is relevant to, by id; of a pair that is judged twice the higher counts."""
    relevant: dict[str, dict[int, float]] = defaultdict(dict)
    for row in judged:
        asked, answer, score = str(row["query-id"]), str(row["corpus-id"]), float(str(row["score"]))
        if score <= 0 or asked not in items:
            continue
        if answer not in places:
            folder.problem(f"{where} names {answer}, which the corpus does not have")
            continue
        relevant[asked][places[answer]] = max(score, relevant[asked].get(places[answer], 0.0))
    return [
        (name, graded(Query(item, (), (HEADLINE,)), relevant[name])) for name, item in items.items() if relevant[name]
    ]
