"""Whether marking a region helps: the same pictures with and without it, on toy scenes and on scenes of `mini-mmeb`.

    python benchmarks/regions.py [DATA] [--model mllm-embed-mini] [--count 400]

- toy-shapes: two to four coloured shapes, drawn by code; the picture asks for the name of one of them among the names
  of the scene's shapes.
- sprite-condition: two emoji side by side; the picture asks for the name of one of them, among the names of all emoji.
- nlvr-object: a scene of coloured shapes in three boxes; the picture asks for the name of one shape ("the yellow circle
  in the left box") among the names of the scene's shapes. The close-up alone does not show in which box it is.

Without DATA (the data package, see docs/data.md) only the first is asked. Prints the share of queries whose first
answer is right, with its standard error, for each way of asking.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mllm_embed import Embedder, EmbedInput, Image, MediaPolicy, Region
from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.mini_mmeb import build_tasks
from mllm_embed.evaluation.mini_mmeb_rows import object_text
from mllm_embed.evaluation.mini_mmeb_scenes import OBJECTS
from mllm_embed.evaluation.pools import Selection, hash_order
from mllm_embed.media import load_sync
from mllm_embed.tasks import get_task
from mllm_embed.toy_shapes import scenes

BATCH = 64
BOX_STRIDE = 150
"""Pixels from one box of an NLVR scene to the next."""
TASK = get_task("image-to-text")

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Question:
    """A picture, the box of what is meant, what it is called among which names, and how it is asked for in words."""

    picture: PIL.Image.Image
    box: Box
    name: str
    names: tuple[str, ...]
    words: str


def toys(count: int) -> list[Question]:
    """Return questions about toy scenes: the first shape of each."""
    found: list[Question] = []
    for scene in scenes(2 * count, seed=0):
        if len(scene.objects) > 1 and len(found) < count:
            first = scene.objects[0]
            found.append(Question(scene.image, first.box, first.name, tuple(one.name for one in scene.objects), ""))
    return found


def sprites(data: DataFolder, count: int) -> list[Question]:
    """Return questions of sprite-condition, both sides of the same pictures."""
    (task,) = build_tasks(data, Selection(), ["sprite-condition"])
    (part,) = task.parts
    names = tuple(item.content[0].text for item in part.candidates)  # type: ignore[union-attr]  # texts
    pairs = hash_order({query.instance for query in part.queries}, str)[: count // 2]
    found = []
    for query in part.queries:
        if query.instance in pairs:
            scene = query.item.content[0].source  # type: ignore[union-attr]  # a picture
            words = query.item.instruction or ""
            found.append(Question(scene, sprite_box(scene, words), names[query.truths[0]], names, words))
    return found


def sprite_box(scene: PIL.Image.Image, words: str) -> Box:
    """Return the box of what is not white in the half that the words name."""
    middle = scene.width // 2
    start = 0 if "left" in words else middle
    ink = np.asarray(scene.convert("L"))[:, start : start + middle] < 250
    columns, rows = np.flatnonzero(ink.any(axis=0)), np.flatnonzero(ink.any(axis=1))
    return int(columns[0]) + start, int(rows[0]), int(columns[-1]) + start + 1, int(rows[-1]) + 1


def shapes(data: DataFolder, count: int) -> list[Question]:
    """Return questions about the scenes of nlvr-object: the first shape, in hash order, that its name tells apart."""
    selection = Selection()
    rows = [row for row in data.rows(*OBJECTS) if selection.is_held_out(row["split"]) and row["structured"]]
    distinct = {row["image"]: row for row in rows}.values()  # the same picture stands under several sentences
    found: list[Question] = []
    for row in hash_order(distinct, lambda row: str(row["image_id"])):
        boxes = list(named_boxes(json.loads(row["structured"])))
        names = [name for name, _ in boxes]
        clear = [(name, box) for name, box in boxes if names.count(name) == 1]
        if clear and len(set(names)) > 1 and len(found) < count:
            name, box = hash_order(clear, str)[0]
            scene = load_sync(Image(row["image"]), MediaPolicy.local())
            found.append(Question(scene, box, name, tuple(sorted(set(names))), ""))
    return found


def named_boxes(structured: Sequence[Sequence[dict[str, Any]]]) -> Iterator[tuple[str, Box]]:
    """Yield the name and the box of every shape of a scene."""
    for place, members in enumerate(structured):
        for one in members:
            left, top, size = one["x_loc"] + place * BOX_STRIDE, one["y_loc"], one["size"]
            yield object_text(one["color"], one["type"], place), (left, top, left + size, top + size)


def centre(box: Box) -> tuple[float, float]:
    """Return the middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


WAYS: dict[str, Callable[[Question], EmbedInput]] = {
    "whole picture": lambda one: EmbedInput((Image(one.picture),), TASK.query),
    "whole picture, side named in the instruction": lambda one: EmbedInput((Image(one.picture),), one.words),
    "region: point": lambda one: EmbedInput((Image(one.picture, Region(point=centre(one.box))),), TASK.query),
    "region: box": lambda one: EmbedInput((Image(one.picture, Region(box=one.box)),), TASK.query),
    "cut out, context thrown away": lambda one: EmbedInput((Image(one.picture.crop(one.box)),), TASK.query),
}


def embed(embedder: Embedder, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
    """Embed in batches, so that the pictures of one are in memory at a time."""
    return np.concatenate([embedder.embed(items[start : start + BATCH]) for start in range(0, len(items), BATCH)])


def measure(embedder: Embedder, title: str, questions: Sequence[Question]) -> None:
    """Print a row per way of asking."""
    names = sorted({name for one in questions for name in one.names})
    place = {name: row for row, name in enumerate(names)}
    known = embed(embedder, [EmbedInput.of(name, instruction=TASK.target) for name in names])
    chance = np.mean([1 / len(one.names) for one in questions])
    print(f"\n{title}: {len(questions)} questions, chance {chance:.4f}\n")
    print("| asked by | right | standard error |\n|---|---|---|")
    for way, ask in WAYS.items():
        if "named" in way and not questions[0].words:
            continue
        vectors = embed(embedder, [ask(one) for one in questions])
        right = [
            one.names[int(np.argmax(known[[place[name] for name in one.names]] @ vector))] == one.name
            for one, vector in zip(questions, vectors, strict=True)
        ]
        share = float(np.mean(right))
        print(f"| {way} | {share:.3f} | {math.sqrt(share * (1 - share) / len(right)):.3f} |", flush=True)


def main() -> None:
    """Measure both tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data package, see docs/data.md")
    parser.add_argument("--model", default="mllm-embed-mini")
    parser.add_argument("--count", type=int, default=400, help="questions of each task, at most")
    options = parser.parse_args()
    with Embedder.load(options.model, backend="transformers") as embedder:
        measure(embedder, "toy-shapes", toys(options.count))
        if options.data is not None:
            data = DataFolder(options.data)
            measure(embedder, "sprite-condition", sprites(data, options.count))
            measure(embedder, "nlvr-object", shapes(data, options.count))


if __name__ == "__main__":
    main()
