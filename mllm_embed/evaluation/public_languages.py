"""Public sets in many languages, a part per language: XTD10, WIT."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePath

from mllm_embed.evaluation.eval_types import EvalTask, Part
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE, both_ways, picture_targets, places_of_equal, query, squeezed
from mllm_embed.types import Image, Text

XTD = {
    **dict.fromkeys(("en", "es", "it", "ko", "pl", "ru", "tr", "zh"), "XTD10"),
    **dict.fromkeys(("de", "fr"), "MIC"),
    "jp": "STAIR",
}
"""Languages, and the folder of each one's captions; the names are those of the files."""


def xtd(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """XTD10: captions in 11 languages find the same 1,000 pictures of COCO; recall at 10 is what its makers report.

    Schema: Aggarwal and Kale 2020, `FOLDER/test_1kcaptions_LANGUAGE.txt`, a line for each of those of
    `XTD10/test_image_names.txt`; pictures lie as in COCO, `images/train2014/` and `images/val2014/`. A picture is an
    instance: how much its rank varies between the languages is reported. The limit is of pictures, the same ones in
    every language.
    """
    names = folder.lines("XTD10/test_image_names.txt")
    folder.unique(names, "picture")
    pictures = [folder.image(f"images/{_coco_part(name)}/{name}") for name in names]
    captions = {language: folder.lines(f"{place}/test_1kcaptions_{language}.txt") for language, place in XTD.items()}
    for language, own in captions.items():
        if names and own and len(own) != len(names):
            folder.problem(f"captions in {language} must be {len(names)}, a line for each picture, but are {len(own)}")
    folder.check()
    asked = hash_order(range(len(names)), lambda place: names[place])[:limit]
    candidates = picture_targets(pictures)
    parts = []
    for language, own in captions.items():
        right = places_of_equal(own)
        queries = [query("text-to-image", (Text(own[i]),), right[own[i]], instance=names[i]) for i in asked]
        parts.append(Part(language, tuple(queries), candidates))
    return [EvalTask("xtd-t2i", "multilingual", tuple(parts), HEADLINE, ("hit10", "hit1", "hit5"))]


def wit(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """WIT as IGLUE tests it: in each language, captions of Wikipedia and that language's pictures find each other.

    Schema: the hub's `mteb/wit` (Bugliarello et al. 2022, IGLUE; WIT itself, Srinivasan et al. 2021, is published
    without pictures): `data/LANGUAGE-*.parquet` of `image, image_id, captions`. Recall at 1 is IGLUE's metric, nDCG at
    10 is MTEB's.
    """
    pictures: dict[str, list[Image]] = defaultdict(list)
    captions: dict[str, list[list[str]]] = defaultdict(list)
    for file in folder.files("data/*.parquet"):
        language = PurePath(file).name.partition("-")[0]
        rows = folder.records(file, ("image", "image_id", "captions"), pictures=("image",))
        folder.unique((row["image_id"] for row in rows), f"{language} picture")
        pictures[language] += [Image(row["image"]) for row in rows]
        captions[language] += [[squeezed(text) for text in row["captions"]] for row in rows]
    folder.check()
    by_language = [
        both_ways(pictures[language], captions[language], limit, part=language) for language in sorted(pictures)
    ]
    return [
        EvalTask(f"wit-{way}", "multilingual", tuple(parts[way] for parts in by_language), HEADLINE, ("hit1", "ndcg10"))
        for way in ("t2i", "i2t")
    ]


def _coco_part(name: str) -> str:
    """`COCO_val2014_000000061844.jpg` lies in `val2014`."""
    pieces = name.split("_")
    return pieces[1] if len(pieces) == 3 else ""
