"""MMEB's evaluation sets in their published schema: 36 sets in four meta-tasks, 20 of them in distribution.

Facts: Jiang et al. 2025, VLM2Vec. A folder per set with parquet files of `qry_inst, qry_text, qry_img_path, tgt_inst,
tgt_text, tgt_img_path`; the targets are lists, and the first candidate is the right one. Picture paths are relative to
the folder `images`.
"""

from __future__ import annotations

from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Part, Query
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder, Record
from mllm_embed.types import Content, EmbedInput, Text

FIELDS = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
_PLACEHOLDERS = ("<|image_1|>", "<image>")
IN_DISTRIBUTION = {
    "classification": ("ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397"),
    "VQA": ("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W"),
    "retrieval": (
        *("VisDial", "CIRR", "VisualNews_t2i", "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t", "NIGHTS", "WebQA"),
    ),
    "grounding": ("MSCOCO",),
}
"""Sets whose training parts belong to MMEB-train, by meta-task."""
OUT_OF_DISTRIBUTION = {
    "classification": ("Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211"),
    "VQA": ("ScienceQA", "VizWiz", "GQA", "TextVQA"),
    "retrieval": ("FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS"),
    "grounding": ("RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
}
"""Sets that MMEB-train does not know, by meta-task."""
META_TASKS = {
    name: meta for kinds in (IN_DISTRIBUTION, OUT_OF_DISTRIBUTION) for meta, names in kinds.items() for name in names
}
"""The meta-task of each of the 36 sets."""
SLICE_IN, SLICE_OUT = "IND", "OOD"


def mmeb_tasks(folder: PublicFolder, limit: int | None = None) -> list[EvalTask]:
    """Build one task per set that the folder holds.

    Args:
        folder: with a folder per set, and `images`.
        limit: queries per set, the first in hash order; None takes all.

    Raises:
        EvaluationError: no set, or records and pictures that are missing, all listed.
    """
    names = [name for name in META_TASKS if (folder.path / name).is_dir()]
    if not names:
        raise EvaluationError(f"{folder.path} has no folder of an MMEB set, such as {next(iter(META_TASKS))}")
    known = {name for names_in in IN_DISTRIBUTION.values() for name in names_in}
    tasks = [_task(folder, name, SLICE_IN if name in known else SLICE_OUT, limit) for name in names]
    folder.check()
    return tasks


def _task(folder: PublicFolder, name: str, distribution: str, limit: int | None) -> EvalTask:
    rows = [row for file in folder.files(f"{name}/*.parquet") for row in folder.records(file, FIELDS)]
    queries: list[Query] = []
    candidates: list[EmbedInput] = []
    places: dict[str, int] = {}
    for row in hash_order(rows, _name)[:limit]:
        own = []
        for text, picture in zip(row["tgt_text"], row["tgt_img_path"], strict=True):
            item = _item(folder, row.get("tgt_inst"), text, picture)
            key = f"{item.instruction}\0{text}\0{picture}"
            if key not in places:
                places[key] = len(candidates)
                candidates.append(item)
            own.append(places[key])
        query = _item(folder, row.get("qry_inst"), row["qry_text"], row["qry_img_path"])
        queries.append(Query(query, (own[0],), ("test", distribution), tuple(dict.fromkeys(own))))
    return EvalTask(name, META_TASKS[name], (Part("all", tuple(queries), tuple(candidates), shared=0),), "test")


def _name(row: Record) -> str:
    return f"{row['qry_text']}\0{row['qry_img_path']}\0{row['tgt_text'][:1]}\0{row['tgt_img_path'][:1]}"


def _item(folder: PublicFolder, instruction: str | None, text: str, picture: str) -> EmbedInput:
    """Build one side: the picture, if there is one, before the text; placeholders of other models are taken out."""
    for placeholder in _PLACEHOLDERS:
        text = text.replace(placeholder, "")
        instruction = (instruction or "").replace(placeholder, "")
    content: list[Content] = [folder.image(f"images/{picture}")] if picture else []
    if text.strip():
        content.append(Text(text.strip()))
    return EmbedInput(tuple(content), (instruction or "").strip() or None)
