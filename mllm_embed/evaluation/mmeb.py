"""MMEB's evaluation sets in their published schema: 36 sets in four meta-tasks, 20 of them in distribution.

Facts: Jiang et al. 2025, VLM2Vec. A folder per set with parquet files of `qry_inst, qry_text, qry_img_path, tgt_inst,
tgt_text, tgt_img_path`; the targets are lists, and the first candidate is the right one. Picture paths are relative to
the folder `images`.
"""

from __future__ import annotations

from functools import partial

from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Part, Query
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import Candidates
from mllm_embed.evaluation.public_readers import Record
from mllm_embed.types import Content, EmbedInput, Text

FIELDS = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
INSTRUCTIONS = ("qry_inst", "tgt_inst")
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
    tasks = image_tasks(folder, limit, sets="", pictures="images/")
    folder.check()
    if not tasks:
        raise EvaluationError(f"{folder.path} has no folder of an MMEB set, such as {next(iter(META_TASKS))}")
    return tasks


def image_tasks(
    folder: PublicFolder, limit: int | None, *, sets: str, pictures: str, group: str = ""
) -> list[EvalTask]:
    """Build the tasks of the sets of pictures that are there, collecting the folder's problems.

    Args:
        folder: the folder.
        limit: queries per set.
        sets: where the folders of the sets lie, empty or with a slash at its end.
        pictures: where picture paths begin, likewise.
        group: see `EvalTask.group`.
    """
    known = {name for names in IN_DISTRIBUTION.values() for name in names}
    tasks = []
    for name in folder.present({name: f"{sets}{name}" for name in META_TASKS}):
        rows = [
            row
            for file in folder.files(f"{sets}{name}/*.parquet")
            for row in folder.records(file, FIELDS, optional=INSTRUCTIONS)
        ]
        reader = _Reader(folder, name, pictures)
        mark = SLICE_IN if name in known else SLICE_OUT
        queries = tuple(reader.query(row, mark) for row in hash_order(rows, _name)[:limit])
        part = Part("all", queries, reader.candidates.items(), shared=0)
        tasks.append(EvalTask(name, META_TASKS[name], (part,), "test", group=group))
    return tasks


class _Reader:
    """Turns the rows of one set into queries and the candidates that they share, each of them once."""

    def __init__(self, folder: PublicFolder, name: str, pictures: str) -> None:
        self.candidates = Candidates()
        self._folder = folder
        self._name = name
        self._pictures = pictures

    def query(self, row: Record, distribution: str) -> Query:
        """Return a row's query; the first of its candidates is right."""
        texts, pictures = row["tgt_text"], row["tgt_img_path"]
        if not texts or len(texts) != len(pictures):
            self._folder.problem(
                f"{self._name}: a row must have a text and a picture path for each candidate, but one has "
                f"{len(texts)} and {len(pictures)}"
            )
        keys = [(row.get("tgt_inst"), *both) for both in zip(texts, pictures, strict=False)]
        own = [self.candidates.place(key, partial(self._item, *key)) for key in keys]
        asked = self._item(row.get("qry_inst"), row["qry_text"], row["qry_img_path"])
        return Query(asked, tuple(own[:1]), ("test", distribution), tuple(dict.fromkeys(own)))

    def _item(self, instruction: str | None, text: str, picture: str) -> EmbedInput:
        """Build one side: the picture, if there is one, before the text; placeholders of other models are taken out."""
        for placeholder in _PLACEHOLDERS:
            text = text.replace(placeholder, "")
            instruction = (instruction or "").replace(placeholder, "")
        content: list[Content] = [self._folder.image(f"{self._pictures}{picture}")] if picture else []
        if text.strip() or not picture:
            content.append(Text(text.strip()))
        if not text.strip() and not picture:
            self._folder.problem(f"{self._name}: a query or candidate has neither text nor picture")
        return EmbedInput(tuple(content), (instruction or "").strip() or None)


def _name(row: Record) -> str:
    return f"{row['qry_text']}\0{row['qry_img_path']}\0{row['tgt_text'][:1]}\0{row['tgt_img_path'][:1]}"
