"""An LVLM answers what stage (a) taught it, in the format that it was taught in."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import Image, Text
from mllm_embed_training import toy_tasks
from mllm_embed_training.ask import Answerer, ask
from mllm_embed_training.build import build_stage, save_result
from mllm_embed_training.trainer import train
from tests.training.test_trainer import recipe


@pytest.fixture(scope="module")
def taught(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learned the captions of two scenes by heart."""
    out = tmp_path_factory.mktemp("ask")
    count, toy_tasks.COUNT = toy_tasks.COUNT, 2
    try:
        data = {"tasks": {"toy-caption": 1}, "batch_size": 2, "group_size": 2}
        config = recipe("generative", tiny_path, out, data=data, optim={"steps": 150, "lr": 0.01, "warmup_steps": 5})
        stage, start = build_stage(config, out)
        assert train(config, stage, out, start="tiny")
        save_result(stage, start, config, out / "model")
    finally:
        toy_tasks.COUNT = count
    return out / "model"


def test_it_gives_the_answers_that_it_learned_and_looks_at_the_picture(taught: Path) -> None:
    answerer = Answerer(open_model_dir(taught))
    scenes = list(toy_tasks.scenes(2, seed=0))
    answers = [answerer.answer((Image(scene.image), Text("Describe the picture."))) for scene in scenes]
    for scene, answer in zip(scenes, answers, strict=True):  # cut at the longest answer's tokens
        assert scene.caption.startswith(answer), answer
        assert len(answer) >= min(len(scene.caption), 30)
    assert len(set(answers)) == len(scenes)


def test_the_command_prints_the_answer(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = next(iter(toy_tasks.scenes(2, seed=0)))
    scene.image.save(tmp_path / "scene.png")
    ask(str(taught), "Describe the picture.", [tmp_path / "scene.png"])
    answer = capsys.readouterr().out.strip().splitlines()[-1]
    assert len(answer) > 20
    assert scene.caption.startswith(answer)


def test_pictures_of_a_blank_page_are_answered_too(taught: Path) -> None:
    assert isinstance(Answerer(open_model_dir(taught)).answer((Image(PIL.Image.new("RGB", (64, 64))), Text("?"))), str)
