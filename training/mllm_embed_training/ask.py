"""`mllm-embed ask`: what an LVLM answers about a picture, and what it answers about held-out ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mllm_embed.evaluation.data_folder import DataFolder
    from mllm_embed.model_dir import ModelDir
    from mllm_embed.types import Content

MAX_ANSWER = 96
"""Longest answer, in tokens."""


class Answerer:
    """Prompts an LVLM in the format that stage (a) trains, and decodes greedily.

    Args:
        model_dir: a model with its language-model head, adapter or not.
    """

    def __init__(self, model_dir: ModelDir) -> None:
        from tokenizers import Tokenizer

        from mllm_embed.families.base import USER_TURN
        from mllm_embed.modeling.inputs import InputBuilder
        from mllm_embed.modeling.loading import load_model
        from mllm_embed.prompts import PromptRenderer

        self._model: Any = load_model(model_dir)
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, USER_TURN)
        self._inputs = InputBuilder(model_dir, self._renderer.image_token_id)
        self._end = self._renderer.control_id("<|im_end|>")
        self._tokenizer = Tokenizer.from_file(str(model_dir.tokenizer_file))

    def answer(self, content: Sequence[Content]) -> str:
        """Return the answer to a question and its pictures.

        Args:
            content: texts and pictures, in order.
        """
        from mllm_embed.types import EmbedInput
        from mllm_embed_training.examples import opened

        item, pictures = opened(EmbedInput(tuple(content)))
        inputs = self._inputs.build([self._renderer.render(item, "", pictures)])
        written = self._model.generate(
            **inputs, max_new_tokens=MAX_ANSWER, do_sample=False, eos_token_id=self._end, pad_token_id=self._end
        )
        ids = written[0, inputs["input_ids"].shape[1] :].tolist()
        return str(self._tokenizer.decode(ids)).strip()  # without control tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """A held-out picture with a question and the answer that its row has."""

    kind: str
    picture: bytes
    question: str
    truth: str


def held_out(data: DataFolder, each: int) -> Iterator[Asked]:
    """Yield the first held-out rows, in hash order, of each kind of picture that stage (a) learns to talk about."""
    from mllm_embed.evaluation.mini_mmeb_rows import class_name, emoji_name, truth_text
    from mllm_embed.evaluation.pools import hash_order

    concepts = {row["concept_id"]: row for row in data.rows("emoji_concepts.parquet", ("concept_id", "label_en"))}
    emoji = data.rows("emoji_images-*.parquet", ("image_id", "concept_id", "split", "style", "image"))
    for split in ("test_comp", "test_new"):
        rows = [row for row in emoji if row["split"] == split and row["style"] == "noto"]
        for row in hash_order(rows, lambda row: str(row["image_id"]))[:each]:
            yield Asked(f"emoji, {split}", row["image"], "What is this?", emoji_name(concepts[row["concept_id"]]))
    figures = data.rows("openstax_figures-*.parquet", ("image_id", "split", "kind", "image"))
    rows = [row for row in figures if row["split"] == "test" and row["kind"] != "other"]
    for row in hash_order(rows, lambda row: str(row["image_id"]))[:each]:
        yield Asked("figure", row["image"], "What kind of figure is this?", str(row["kind"]))
    photos = data.rows("photos.parquet", ("image_id", "split", "label", "image"))
    rows = [row for row in photos if row["split"] == "test_inst"]
    for row in hash_order(rows, lambda row: str(row["image_id"]))[:each]:
        yield Asked("photo", row["image"], "What is this?", class_name(row["label"]))
    scenes = data.rows("nlvr.parquet", ("image_id", "split", "sentence", "label", "image"))
    rows = [row for row in scenes if row["split"] == "test"]
    for row in hash_order(rows, lambda row: str(row["image_id"]))[:each]:
        yield Asked("scene", row["image"], f"{row['sentence']} True or false?", truth_text(row["label"]))


def ask(
    model: Annotated[str, typer.Argument(help="Model directory, e.g. runs/mini-lvlm/model, or a hub name")],
    question: Annotated[str | None, typer.Argument(help="What to ask; without it, held-out pictures are asked")] = None,
    pictures: Annotated[list[Path] | None, typer.Argument(help="Pictures, which stand before the question")] = None,
    *,
    data: Annotated[Path | None, typer.Option(help="Data package; default: MLLM_EMBED_DATA")] = None,
    each: Annotated[int, typer.Option(min=1, help="Held-out rows of each kind to show")] = 4,
) -> None:
    """Ask a vision-language model about pictures; without a question, about held-out ones, as a Markdown table.

    Examples:

      mllm-embed ask runs/mini-lvlm/model "What is this?" cat.png

      mllm-embed ask runs/mini-lvlm/model --each 3
    """
    from mllm_embed.evaluation.data_folder import DataFolder, find_data
    from mllm_embed.model_dir import open_model_dir
    from mllm_embed.types import Image, Text

    rows = None if question is not None else list(held_out(DataFolder(find_data(data)), each))
    answerer = Answerer(open_model_dir(model))
    if rows is None:
        content: list[Content] = [*(Image(picture) for picture in pictures or ()), Text(question or "")]
        typer.echo(answerer.answer(content))
        return
    typer.echo("| picture | question | answer | truth |\n| --- | --- | --- | --- |")
    for row in rows:
        answer = answerer.answer((Image(row.picture), Text(row.question)))
        typer.echo(f"| {row.kind} | {row.question} | {answer} | {row.truth} |")
