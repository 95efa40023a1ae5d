"""Public sets of captions that differ in little: SugarCrepe, Winoground."""

from __future__ import annotations

from mllm_embed.evaluation.eval_types import EvalTask, Part
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE, picture_targets, query
from mllm_embed.types import Text

SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
"""Ways in which SugarCrepe's wrong captions are made, and names of its files."""


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
            query("image-to-text", (picture,), (2 * i,), (2 * i, 2 * i + 1)) for i, (picture, _) in enumerate(pairs)
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
        text.append(query("image-to-text", (picture,), (place,), own, instance=name))
        image.append(query("text-to-image", (Text(caption),), (place,), own, instance=name))
    by_text = Part("text", tuple(text), tuple(map(text_target, captions)), shared=0)
    by_image = Part("image", tuple(image), picture_targets(pictures), shared=0)
    parts = {"text": (by_text,), "image": (by_image,), "group": (by_text, by_image)}
    return [EvalTask(f"winoground-{name}", "compositional", own, HEADLINE) for name, own in parts.items()]
