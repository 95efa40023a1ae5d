"""Public sets of pictures and their captions: Flickr30K, COCO, Urban1K, ShareGPT4V."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from mllm_embed.evaluation.eval_types import EvalTask
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE, both_ways, squeezed
from mllm_embed.types import Image

RECALLS = ("hit1", "hit5", "hit10")
"""What is called recall at 1, 5 and 10 with captions: one of the right ones is enough."""
SHAREGPT4V = ("share-captioner_coco_lcs_sam_1246k_1107.json", 1000)
"""The file of captions, and how many of its first rows are the test set (Zhang et al. 2024, Long-CLIP)."""


def captioned(folder: PublicFolder, limit: int | None, *, name: str, file: str) -> list[EvalTask]:
    """Flickr30K and COCO in Karpathy's split file: each picture of the split `test` has several captions."""
    rows = folder.records(file, ("filename", "split", "sentences"), optional=("filepath",))
    rows = [row for row in rows if row["split"] == "test"]
    folder.unique((row["filename"] for row in rows), "picture")
    pictures = [folder.image(_picture_path(row.get("filepath"), row["filename"])) for row in rows]
    captions = [[squeezed(one["raw"]) for one in row["sentences"]] for row in rows]
    return _tasks(folder, name, pictures, captions, limit)


def urban1k(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """Urban1K: `image/N.jpg` and its long caption `caption/N.txt` (Zhang et al. 2024, Long-CLIP)."""
    files = folder.files("caption/*.txt")
    pictures = [folder.image(f"image/{PurePath(file).stem}.jpg") for file in files]
    captions = [[squeezed((folder.path / file).read_text(encoding="utf-8"))] for file in files]
    return _tasks(folder, "urban1k", pictures, captions, limit)


def sharegpt4v(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """ShareGPT4V: the first 1,000 rows of its captions; a row's caption is what is answered first.

    Rows are `id, image, conversations` with turns of `from, value` (Chen et al. 2023); picture paths are relative to
    the file. Which rows are the test set: Zhang et al. 2024, Long-CLIP, `train/sharegpt4v.py`.
    """
    file, count = SHAREGPT4V
    rows = folder.records(file, ("image", "conversations"))[:count]
    folder.unique((row["image"] for row in rows), "picture")
    for row in rows:
        if len(row["conversations"]) < 2:
            folder.problem(f"{file}: {row['image']} has no caption, which must be the second turn")
    pictures = [folder.image(row["image"]) for row in rows]
    captions = [[squeezed(turn["value"]) for turn in row["conversations"][1:2]] for row in rows]
    return _tasks(folder, "sharegpt4v", pictures, captions, limit)


def _tasks(
    folder: PublicFolder, name: str, pictures: Sequence[Image], captions: Sequence[Sequence[str]], limit: int | None
) -> list[EvalTask]:
    folder.check()
    return [
        EvalTask(f"{name}-{way}", "retrieval", (part,), HEADLINE, RECALLS)
        for way, part in both_ways(pictures, captions, limit).items()
    ]


def _picture_path(folder: str | None, file: str) -> str:
    return f"images/{folder}/{file}" if folder else f"images/{file}"
