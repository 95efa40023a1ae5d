"""The stream of batches from own files: corrupt rows counted, several positives, distinct answers, exact resuming."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed_training.build import build_stage
from mllm_embed_training.config import ConfigError, TrainConfig
from mllm_embed_training.contrastive import ContrastiveBatch, ContrastiveStage
from mllm_embed_training.errors import TrainingFailed
from mllm_embed_training.objective import LossSection
from mllm_embed_training.plan import Draw, MixturePlan, spread
from mllm_embed_training.trainer import train

COLOURS = ("red", "green", "blue", "black", "white", "yellow", "purple", "orange")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of eight colours and the rows that name them; row 3 lacks its picture, row 5 is no JSON."""
    lines = []
    for number, colour in enumerate(COLOURS):
        PIL.Image.new("RGB", (64, 64), colour).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"query": f"something {colour}", "positive": {"image": f"{number}.png"}}))
    (tmp_path / "3.png").unlink()
    lines[5] = lines[5][:20]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path


def recipe(model: Path, folder: Path, **data: Any) -> TrainConfig:
    raw = {
        "stage": "contrastive",
        "run_dir": str(folder / "run"),
        "model": {"path": str(model)},
        "lora": {"r": 2, "alpha": 4, "dropout": 0},
        "loss": {"info_nce": {"temperature": 0.1}},
        "data": {
            "tasks": {"own": 1},
            "files": {"own": {"path": str(folder / "rows.jsonl"), "task": "text-to-image"}},
            "batch_size": 4,
            "group_size": 4,
            "chunk_size": 4,
            **data,
        },
        "optim": {"steps": 4, "lr": 0.001, "warmup_steps": 1},
        "bf16": False,
        "checkpoint_every": 1,
    }
    return TrainConfig.model_validate(raw)


def run(config: TrainConfig) -> list[float]:
    stage, _ = build_stage(config, Path(config.run_dir))
    assert train(config, stage, Path(config.run_dir), start="tiny")
    return [json.loads(line)["loss"] for line in (Path(config.run_dir) / "metrics.jsonl").read_text().splitlines()]


def test_corrupt_rows_are_replaced_counted_and_named(
    tiny_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(run(recipe(tiny_path, folder))) == 4
    lines = (folder / "run" / "corrupt.jsonl").read_text().splitlines()
    named = sorted(json.loads(line)["row"].partition(" (")[0] for line in lines)
    assert named == ["own: row 3: its file '3.png' cannot be read", "own: row 5: it is not JSON"]
    assert caplog.text.count("a corrupt row is replaced by the next one") == 2


def test_too_many_corrupt_rows_end_the_run(tiny_path: Path, folder: Path) -> None:
    with pytest.raises(
        TrainingFailed, match=r"2 corrupt rows, and data\.max_corrupt is 1; .*corrupt\.jsonl lists them"
    ):
        run(recipe(tiny_path, folder, max_corrupt=1))


def test_rows_that_are_all_corrupt_end_the_run(tiny_path: Path, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"query": 1}\n{"query": 2}\n')
    with pytest.raises(
        TrainingFailed, match=r"own: none of its 2 rows can be read; the last says: own: row \d: it has no"
    ):
        run(recipe(tiny_path, folder))


def test_a_resumed_run_sees_the_same_rows_and_counts_no_fault_twice(tiny_path: Path, folder: Path) -> None:
    whole = run(recipe(tiny_path, folder))
    found = (folder / "run" / "corrupt.jsonl").read_text()
    (folder / "run").rename(folder / "whole")
    config = recipe(tiny_path, folder)
    shorter = config.model_copy(update={"optim": config.optim.model_copy(update={"steps": 2})})
    run(shorter)
    assert run(config) == whole
    assert (folder / "run" / "corrupt.jsonl").read_text() == found


def test_a_checkpoint_knows_its_files(tiny_path: Path, folder: Path) -> None:
    run(recipe(tiny_path, folder))
    with (folder / "rows.jsonl").open("a") as file:
        file.write('\n{"query": "one more", "positive": "row"}')
    with pytest.raises(IncompatibleCheckpoint, match=r"was made with data\.files\.own"):
        run(recipe(tiny_path, folder))


def test_a_file_with_instructions_that_do_not_exist_is_refused(tiny_path: Path, folder: Path) -> None:
    config = recipe(tiny_path, folder, files={"own": {"path": str(folder / "rows.jsonl"), "task": "nothing"}})
    with pytest.raises(ConfigError, match=r"data\.files\.own\.task: task must be one of .* but is 'nothing'"):
        run(config)


def collated(
    model: Path, folder: Path, *rows: dict[str, Any], loss: str = "info_nce"
) -> tuple[ContrastiveStage, ContrastiveBatch]:
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = recipe(model, folder).model_copy(update={"loss": LossSection.model_validate({loss: {}})})
    stage, _ = build_stage(config, folder / "run")
    assert isinstance(stage, ContrastiveStage)
    return stage, stage.collate([stage.prepare(Draw("own", row, (0, 0, row))) for row in range(len(rows))])


def test_further_right_answers_are_graded_and_never_negatives(tiny_path: Path, tmp_path: Path) -> None:
    stage, batch = collated(
        tiny_path,
        tmp_path,
        {"query": "animal", "positives": ["cat", "toy cat"], "grades": [1, 0.5], "negatives": ["car"]},
        {"query": "plant", "positive": "tree", "negatives": ["Toy  Cat"]},
        loss="soft_info_nce",
    )
    targets = stage._targets(batch)
    assert targets.grades is not None
    assert targets.grades.gather(1, targets.labels[:, None]).tolist() == [[1], [1]]
    animal = int((targets.grades > 0).sum(dim=1).argmax())
    assert sorted(targets.grades[animal].tolist()) == [0, 0, 0, 0.5, 1]
    assert sorted(targets.grades[1 - animal].tolist()) == [0, 0, 0, 0, 1]
    keys = batch.candidate_keys.tolist()
    toy_cats = [keys.count(key) == 2 for key in keys]  # the second right answer, and the other row's negative
    assert targets.excluded[animal].tolist() == toy_cats
    assert not targets.excluded[1 - animal].any()


def test_pictures_of_equal_bytes_are_no_negatives_of_each_other(tiny_path: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(buffer.getvalue())
    rows = [{"query": f"query {name}", "positive": {"image": name}} for name in ("a.png", "b.png")]
    stage, batch = collated(tiny_path, tmp_path, *rows)
    assert torch.equal(stage._targets(batch).excluded, torch.tensor([[False, True], [True, False]]))


def groups(order: Any, answers: Any, group: int, first: int = 0) -> list[list[int]]:
    arranged = [int(answers[row]) for row in spread(np.array(order), np.array(answers), group, first)]
    cuts = [0, *range(first or group, len(arranged), group), len(arranged)]
    return [arranged[start:stop] for start, stop in pairwise(cuts)]


def test_rows_of_one_answer_wait_for_another_group() -> None:
    answers = [0, 0, 0, 1, 1, 2, 3, 4, 5]
    found = groups(range(9), answers, 3)
    assert found == [[0, 1, 2], [0, 1, 3], [0, 4, 5]]


@pytest.mark.parametrize(("group", "first"), [(3, 0), (4, 1), (5, 3)])
def test_every_row_comes_once_and_answers_differ_where_they_can(group: int, first: int) -> None:
    rng = np.random.default_rng(group)
    answers = rng.integers(0, 40, size=200)
    order = rng.permutation(200)
    assert sorted(spread(order, answers, group, first).tolist()) == list(range(200))
    found = groups(order, answers, group, first)
    assert sum(len(set(group)) < len(group) for group in found) <= 2  # the last ones may have no choice


def test_two_classes_fill_what_cannot_differ() -> None:
    found = groups(range(10), [0, 1] * 5, 5)
    assert [sorted(set(group)) for group in found] == [[0, 1], [0, 1]]


def test_distinct_answers_hold_across_epochs_of_a_plan() -> None:
    answers = np.arange(30) // 3
    plan = MixturePlan(
        {"own": 30}, {"own": 1}, batch_size=4, group_size=4, steps=30, seed=3, answers={"own": lambda: answers}
    )
    drawn = [[draw.row for draw in plan.draws(step)] for step in range(30)]
    clean = sum(len({answers[row] for row in rows}) == 4 for rows in drawn)
    seen = np.bincount([row for rows in drawn for row in rows], minlength=30)
    assert set(seen.tolist()) == {4}, "120 draws of 30 rows: each four times"
    assert clean >= 24, "only a group across two epochs, or an epoch's last, may repeat an answer"
