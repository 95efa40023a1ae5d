"""Public sets of composed retrieval, a picture and what shall be different: CIRR, FashionIQ, CIRCO."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from mllm_embed.evaluation.eval_types import EvalTask, Part, Query
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE, picture_targets, query
from mllm_embed.evaluation.public_readers import Record
from mllm_embed.types import Image, Text

FASHIONIQ = ("dress", "shirt", "toptee")
"""Categories, each with candidates of its own."""
_COCO = "COCO2017_unlabeled"


def cirr(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """CIRR, its validation split: recall among all pictures, and among the group of similar ones (`cirr-subset`).

    Schema: Liu et al. 2021, `captions/cap.rc2.val.json` of `pairid, reference, target_hard, caption, img_set` and
    `image_splits/split.rc2.val.json` from names to paths in `img_raw`. Rules of the authors' code (CIRPLANT): the
    reference is no candidate, and the group is `img_set.members` without it. The one right picture is `target_hard`.
    """
    paths = folder.mapping("image_splits/split.rc2.val.json")
    fields = ("pairid", "reference", "target_hard", "caption", "img_set")
    rows = folder.records("captions/cap.rc2.val.json", fields)
    folder.unique((row["pairid"] for row in rows), "pair")
    pictures = {name: folder.image(f"img_raw/{path.removeprefix('./')}") for name, path in paths.items()}
    places = {name: place for place, name in enumerate(pictures)}
    for row in rows:
        _known(folder, places, (row["reference"], row["target_hard"], *row["img_set"]["members"]), row["pairid"])
    folder.check()
    candidates = picture_targets(pictures.values())
    among_all, among_few = [], []
    for row in hash_order(rows, lambda row: str(row["pairid"]))[:limit]:
        asked = _composed(pictures[row["reference"]], row["caption"], [places[row["target_hard"]]])
        among_all.append(replace(asked, hidden=(places[row["reference"]],)))
        others = [places[name] for name in row["img_set"]["members"] if name != row["reference"]]
        among_few.append(replace(asked, extras=tuple(others)))
    return [
        _task("cirr", Part("all", tuple(among_all), candidates), ("recall1", "recall5", "recall10", "recall50")),
        _task("cirr-subset", Part("all", tuple(among_few), candidates, 0), ("recall1", "recall2", "recall3")),
    ]


def fashioniq(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """FashionIQ, its validation split: a task per category, recall at 10 and 50 among the category's pictures.

    Schema: Wu et al. 2021, `captions/cap.CATEGORY.val.json` of `candidate, target, captions` (two, which are joined by
    "and") and lists of candidates in `image_splits/split.CATEGORY.val.json`; pictures are `images/ID.jpg` or `.png`.
    The picture that is asked with stays a candidate.
    """
    tasks = []
    for kind in FASHIONIQ:
        if not folder.wants(f"fashioniq-{kind}"):
            continue
        names = folder.names(f"image_splits/split.{kind}.val.json")
        rows = folder.records(f"captions/cap.{kind}.val.json", ("candidate", "target", "captions"))
        folder.unique(names, f"{kind} picture")
        pictures = {name: folder.image_of(f"images/{name}") for name in names}
        places = {name: place for place, name in enumerate(pictures)}
        known = [row for row in rows if _known(folder, places, (row["candidate"], row["target"]), kind)]
        queries = [
            _composed(pictures[row["candidate"]], _joined(row["captions"]), [places[row["target"]]])
            for row in hash_order(known, lambda row: f"{row['candidate']} {row['target']} {row['captions']}")[:limit]
        ]
        part = Part("all", tuple(queries), picture_targets(pictures.values()))
        tasks.append(_task(f"fashioniq-{kind}", part, ("recall10", "recall50")))
    folder.check()
    return tasks


def circo(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """CIRCO, its validation split: mean average precision at 5, 10, 25 and 50 among all unlabelled pictures of COCO.

    Schema: Baldrati et al. 2023, `annotations/val.json` of `id, reference_img_id, relative_caption, gt_img_ids` and
    `semantic_aspects`, each of which is a slice, and COCO's `image_info_unlabeled2017.json`. Several are right.
    """
    info = folder.records(f"{_COCO}/annotations/image_info_unlabeled2017.json", ("id", "file_name"))
    fields = ("id", "reference_img_id", "relative_caption", "gt_img_ids")
    rows = folder.records("annotations/val.json", fields, optional=("semantic_aspects",))
    folder.unique((row["id"] for row in info), "picture")
    folder.unique((row["id"] for row in rows), "query")
    pictures = {row["id"]: folder.image(f"{_COCO}/unlabeled2017/{row['file_name']}") for row in info}
    places = {name: place for place, name in enumerate(pictures)}
    for row in rows:
        _known(folder, places, (row["reference_img_id"], *row["gt_img_ids"]), f"query {row['id']}")
    folder.check()
    queries = [_circo_query(row, pictures, places) for row in hash_order(rows, lambda row: str(row["id"]))[:limit]]
    part = Part("all", tuple(queries), picture_targets(pictures.values()))
    return [_task("circo", part, ("map5", "map10", "map25", "map50"))]


def _circo_query(row: Record, pictures: Mapping[int, Image], places: Mapping[int, int]) -> Query:
    right = sorted({places[name] for name in row["gt_img_ids"]})
    asked = _composed(pictures[row["reference_img_id"]], row["relative_caption"], right)
    return replace(asked, slices=(HEADLINE, *row.get("semantic_aspects", ())))


def _composed(picture: Image, change: object, truths: Sequence[int]) -> Query:
    return query("composed", (picture, Text(str(change).strip())), truths)


def _joined(captions: Sequence[str]) -> str:
    return " and ".join(caption.strip().strip(".?, ") for caption in captions)


def _known(folder: PublicFolder, places: Container[object], names: Sequence[object], where: object) -> bool:
    """Whether all pictures that a row names are candidates; those that are not are a problem."""
    unknown = [str(name) for name in names if name not in places]
    if unknown:
        folder.problem(f"{where} names pictures that are no candidates: {', '.join(unknown)}")
    return not unknown


def _task(name: str, part: Part, metrics: tuple[str, ...]) -> EvalTask:
    return EvalTask(name, "composed", (part,), HEADLINE, metrics)
