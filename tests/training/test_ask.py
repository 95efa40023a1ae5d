"""An LVLM answers what stage (a) taught it, in the format that it was taught in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

from mllm_embed.model_dir import open_model_dir
from mllm_embed.toy_shapes import scenes
from mllm_embed.types import Image, Text
from mllm_embed_training import toy_tasks
from mllm_embed_training.ask import Answerer, ask
from mllm_embed_training.build import build_stage, save_result
from mllm_embed_training.trainer import train
from tests.training.test_trainer import recipe

OPTIM = {"steps": 120, "lr": 0.005, "warmup_steps": 5}
SCENES = sorted(scenes(60, seed=0), key=lambda scene: len(scene.caption))[:3]
"""Those with the shortest captions, so that a tiny model has them by heart within seconds."""


@pytest.fixture(scope="module")
def taught(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny model after it has learned three captions by heart."""
    out = tmp_path_factory.mktemp("ask")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_tasks, "_rows", lambda: SCENES)
        data = {"tasks": {"toy-caption": 1}, "batch_size": 3, "group_size": 3}
        config = recipe("generative", tiny_path, out, data=data, optim=OPTIM, checkpoint_every=999)
        stage, start = build_stage(config, out)
        assert train(config, stage, out, start="tiny")
        save_result(stage, start, config, out / "model")
        yield out / "model"


def test_it_says_what_it_learned_and_looks_at_the_picture(taught: Path) -> None:
    answerer = Answerer(open_model_dir(taught))
    answers = [answerer.answer((Image(scene.image), Text("Describe the picture."))) for scene in SCENES]
    assert len(set(answers)) == len(SCENES)
    assert answers == [scene.caption for scene in SCENES]


def test_the_command_prints_the_answer(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SCENES[0].image.save(tmp_path / "scene.png")
    ask(str(taught), "Describe the picture.", [tmp_path / "scene.png"])
    assert capsys.readouterr().out.strip().splitlines()[-1] == SCENES[0].caption


def test_pictures_of_a_blank_page_are_answered_too(taught: Path) -> None:
    assert isinstance(Answerer(open_model_dir(taught)).answer((Image(PIL.Image.new("RGB", (64, 64))), Text("?"))), str)
