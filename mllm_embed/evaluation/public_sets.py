"""Public test sets in the files that their makers publish, as tasks.

Each function takes the folder and an upper limit of queries (the first in hash order; None takes all).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from mllm_embed.evaluation.eval_types import EvalTask, Part, Query
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.mmeb import mmeb_tasks
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

HEADLINE = "test"
SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
"""Ways in which SugarCrepe's wrong captions are made, and names of its files."""


def captioned(folder: PublicFolder, limit: int | None, *, name: str, file: str) -> list[EvalTask]:
    """Flickr30K and COCO in Karpathy's split file: each picture of the split `test` has several captions."""
    records = [row for row in folder.records(file, ("filename", "split", "sentences")) if row["split"] == "test"]
    folder.unique((row["filename"] for row in records), "picture")
    pictures = [folder.image(_picture_path(row.get("filepath"), row["filename"])) for row in records]
    captions = [[" ".join(str(one["raw"]).split()) for one in row["sentences"]] for row in records]
    folder.check()
    return _both_ways(name, pictures, captions, limit)


def urban1k(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """Urban1K: `image/N.jpg` and its long caption `caption/N.txt`."""
    files = folder.files("caption/*.txt")
    pictures = [folder.image(f"image/{PurePath(file).stem}.jpg") for file in files]
    captions = [[" ".join((folder.path / file).read_text(encoding="utf-8").split())] for file in files]
    folder.check()
    return _both_ways("urban1k", pictures, captions, limit)


def sugarcrepe(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """SugarCrepe: a picture chooses between its caption and one that was changed in one way; a task per way."""
    tasks = []
    for kind in SUGARCREPE:
        records = folder.records(f"{kind}.json", ("filename", "caption", "negative_caption"))
        pairs = [
            (folder.image(f"images/{row['filename']}"), (row["caption"], row["negative_caption"]))
            for row in hash_order(records, lambda row: f"{row['filename']} {row['caption']}")[:limit]
        ]
        queries = [
            _query("image-to-text", (picture,), (2 * i,), (2 * i, 2 * i + 1)) for i, (picture, _) in enumerate(pairs)
        ]
        texts = tuple(text_target(str(text)) for _, both in pairs for text in both)
        tasks.append(
            EvalTask(f"sugarcrepe-{kind}", "compositional", (Part("all", tuple(queries), texts, 0),), HEADLINE)
        )
    folder.check()
    return tasks


def winoground(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """Winoground: two pictures, two captions of the same words.

    A task for each of its scores; the score itself is `all_hit1` of the task's instances: both pictures find their
    caption (text), both captions find their picture (image), or all four do (group).
    """
    fields = ("id", "image_0", "image_1", "caption_0", "caption_1")
    records = hash_order(folder.records("examples.jsonl", fields), lambda row: str(row["id"]))[:limit]
    folder.unique((row["id"] for row in records), "example")
    pictures = [folder.image(f"images/{row[f'image_{i}']}.png") for row in records for i in (0, 1)]
    captions = [str(row[f"caption_{i}"]) for row in records for i in (0, 1)]
    folder.check()
    text, image = [], []
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        own = (place - place % 2, place - place % 2 + 1)
        name = str(records[place // 2]["id"])
        text.append(_query("image-to-text", (picture,), (place,), own, name))
        image.append(_query("text-to-image", (Text(caption),), (place,), own, name))
    targets = tuple(EmbedInput((picture,), get_task("text-to-image").target) for picture in pictures)
    by_text = Part("text", tuple(text), tuple(text_target(caption) for caption in captions), shared=0)
    by_image = Part("image", tuple(image), targets, shared=0)
    parts = {"text": (by_text,), "image": (by_image,), "group": (by_text, by_image)}
    return [EvalTask(f"winoground-{name}", "compositional", own, HEADLINE) for name, own in parts.items()]


def vidore(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """ViDoRe in its BEIR form: `queries`, `corpus` and `qrels` as parquet; pages are pictures, several may be right.

    Every page of a relevance above 0 counts as right.
    """
    columns = {
        "queries": ("query-id", "query"),
        "corpus": ("corpus-id", "image"),
        "qrels": ("query-id", "corpus-id", "score"),
    }
    rows = {
        kind: [row for file in folder.files(f"{kind}/*.parquet") for row in folder.records(file, fields)]
        for kind, fields in columns.items()
    }
    folder.unique((row["corpus-id"] for row in rows["corpus"]), "page")
    folder.unique((row["query-id"] for row in rows["queries"]), "query")
    folder.check()
    places = {row["corpus-id"]: place for place, row in enumerate(rows["corpus"])}
    right: dict[Any, list[int]] = defaultdict(list)
    for row in rows["qrels"]:
        if row["score"] > 0 and row["corpus-id"] in places:
            right[row["query-id"]].append(places[row["corpus-id"]])
    asked = [row for row in rows["queries"] if right[row["query-id"]]]
    queries = [
        _query("document", (Text(str(row["query"])),), tuple(sorted(right[row["query-id"]])), ())
        for row in hash_order(asked, lambda row: str(row["query-id"]))[:limit]
    ]
    target = get_task("document").target
    pages = tuple(EmbedInput((Image(row["image"]["bytes"]),), target) for row in rows["corpus"])
    return [EvalTask(folder.path.name, "documents", (Part("all", tuple(queries), pages),), HEADLINE)]


Build = Callable[[PublicFolder, int | None], list[EvalTask]]
SUITES: dict[str, Build] = {
    "mmeb": mmeb_tasks,
    "flickr30k": lambda folder, limit: captioned(folder, limit, name="flickr30k", file="dataset_flickr30k.json"),
    "coco": lambda folder, limit: captioned(folder, limit, name="coco", file="dataset_coco.json"),
    "urban1k": urban1k,
    "sugarcrepe": sugarcrepe,
    "winoground": winoground,
    "vidore": vidore,
}
"""Public suites by name."""


def _query(
    task: str, content: tuple[Image | Text, ...], truths: tuple[int, ...], own: tuple[int, ...], instance: str = ""
) -> Query:
    return Query(EmbedInput(content, get_task(task).query), truths, (HEADLINE,), own, instance)


def _both_ways(
    name: str, pictures: Sequence[Image], captions: Sequence[Sequence[str]], limit: int | None
) -> list[EvalTask]:
    """Captions find their picture, and pictures any of their captions; equal captions are one candidate."""
    texts = list(dict.fromkeys(text for own in captions for text in own))
    places = {text: place for place, text in enumerate(texts)}
    shown: dict[str, list[int]] = defaultdict(list)
    for place, own in enumerate(captions):
        for text in dict.fromkeys(own):
            shown[text].append(place)
    to_image = [_query("text-to-image", (Text(text),), tuple(shown[text]), ()) for text in texts]
    to_text = [
        _query("image-to-text", (picture,), tuple(sorted({places[text] for text in own})), ())
        for picture, own in zip(pictures, captions, strict=True)
    ]
    targets = tuple(EmbedInput((picture,), get_task("text-to-image").target) for picture in pictures)
    t2i = Part("all", tuple(_first(to_image, limit)), targets)
    i2t = replace(t2i, queries=tuple(_first(to_text, limit)), candidates=tuple(text_target(text) for text in texts))
    return [EvalTask(f"{name}-{way}", "retrieval", (part,), HEADLINE) for way, part in (("t2i", t2i), ("i2t", i2t))]


def _first(queries: Sequence[Query], limit: int | None) -> list[Query]:
    return hash_order(queries, _name)[:limit]


def _name(query: Query) -> str:
    (content,) = query.item.content
    if isinstance(content, Text):
        return content.text
    return content.source.name if isinstance(content.source, PurePath) else repr(content)


def _picture_path(folder: str | None, file: str) -> str:
    return f"images/{folder}/{file}" if folder else f"images/{file}"
