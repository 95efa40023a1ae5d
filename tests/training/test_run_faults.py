"""What a machine runs out of, and data that cannot teach: one sentence that names the knob, exit code 2."""

import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mllm_embed.cli import FAILURE, main
from mllm_embed_training import checkpoint, toy_tasks
from mllm_embed_training.contrastive import ContrastiveStage
from mllm_embed_training.errors import TrainingFailed
from mllm_embed_training.progress import Progress
from mllm_embed_training.run_files import read_lines
from mllm_embed_training.watch import LONELY_STEPS, STILL_STEPS, Watch, stands_still


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 12)


@pytest.fixture
def recipe(tiny_path: Path, tmp_path: Path) -> Path:
    raw = {
        "stage": "contrastive",
        "run_dir": str(tmp_path / "run"),
        "model": {"path": str(tiny_path)},
        "lora": {"r": 2, "alpha": 4, "dropout": 0},
        "data": {"tasks": {"toy-t2i": 1}, "batch_size": 4, "group_size": 4, "chunk_size": 4},
        "optim": {"steps": 4, "lr": 0.001},
        "bf16": False,
        "checkpoint_every": 2,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path / "recipe.yaml"


def failure(recipe: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """Run the command; return the one line that it ends with."""
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe), *(part for override in overrides for part in ("--set", override))])
    assert ended.value.code == FAILURE
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("mllm-embed: "))


def succeed(recipe: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe)])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("overrides", "knob"),
    [
        (["data.chunk_size=4"], "lower data.chunk_size, now 4: the gradients stay the same"),
        (["data.chunk_size=1"], "set model.gradient_checkpointing to true"),
        (["data.chunk_size=1", "model.gradient_checkpointing=true", "lora=null"], "train an adapter"),
        (["data.chunk_size=1", "model.gradient_checkpointing=true"], "set model.quantization to nf4"),
    ],
)
def test_no_memory_names_the_next_knob(
    overrides: list[str], knob: str, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def backward(*_: Any) -> None:
        torch.empty(2**60)  # more than any machine has: torch's own error

    monkeypatch.setattr(ContrastiveStage, "backward", backward)
    said = failure(recipe, capsys, *overrides)
    assert "out of memory; " in said
    assert knob in said


def test_a_gpu_without_memory_is_understood_too(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def backward(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(ContrastiveStage, "backward", backward)
    assert "lower data.chunk_size" in failure(recipe, capsys)


def test_other_faults_of_torch_are_not_hidden(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(ContrastiveStage, "backward", backward)
    with pytest.raises(RuntimeError, match="mat1"):
        main(["train", str(recipe)])


def test_a_disk_that_fills_at_the_second_checkpoint_costs_nothing_but_the_steps_since_the_first(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = recipe.parent / "run"
    saved = torch.save

    def full_after_the_first(value: Any, path: Path) -> None:
        if (run_dir / "checkpoints" / "step-00000002").exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        saved(value, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_after_the_first)
        said = failure(recipe, capsys)
    assert "step-00000004 could not be written, earlier ones are untouched" in said
    assert "No space left on device" in said
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-00000002"]
    assert checkpoint.latest(run_dir) == run_dir / "checkpoints" / "step-00000002"
    assert not (run_dir / "model").exists()
    succeed(recipe)
    assert [row["step"] for row in read_lines(run_dir / "metrics.jsonl")] == [0, 1, 2, 3]
    assert (run_dir / "model" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_between_checkpoints_says_where_the_run_goes_on(
    number: int, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress.update

    def update(progress: Progress, step: int, task: str | None, metrics: dict[str, float]) -> None:
        if step == 3:
            with (recipe.parent / "run" / "metrics.jsonl").open("a") as file:
                file.write('{"step": 3, "lo')
            raise OSError(number, "No space left on device", "metrics.jsonl")
        shown(progress, step, task, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", update)
        said = failure(recipe, capsys)
    assert "no space is left to write metrics.jsonl; free some and give the same command again" in said
    succeed(recipe)
    assert [row["step"] for row in read_lines(recipe.parent / "run" / "metrics.jsonl")] == [0, 1, 2, 3]


def test_a_data_set_of_one_class_ends_the_run(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"query": f"question {number}", "positive": "the same answer"} for number in range(8)]
    (tmp_path / "one.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    files = f"data.files={{one: {{path: {tmp_path / 'one.jsonl'}}}}}"
    said = failure(recipe, capsys, files, "data.tasks={one: 1}", "optim.steps=40")
    assert f"no query has had a negative for {LONELY_STEPS} steps" in said
    assert "a data set of one class" in said


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.group_size=3", "group_size must divide batch_size 4, but is 3"),
        ("data.tasks={}", "tasks needs at least one task with a share above 0"),
        ("data.tasks={toy-t2i: -1}", "a task's share must be at least 0, but that of toy-t2i is -1"),
        ("data.batchsize=4", "data.batchsize: Extra inputs are not permitted"),
        ("data.tasks.toy-t2i.share=1", "an override names a section, but toy-t2i in"),
        ("optim.lr=[", "an override's value must be YAML, but is '['"),
        (
            "loss.matryoshka={dimensions: [16, 64]}",
            "must be below the model's own 64, but one is 64",
        ),
        ("loss.matryoshka={dimensions: [16, 16]}", "dimensions must differ from each other, but are [16, 16]"),
        ("loss.matryoshka={dimensions: [16], weights: [0, 0]}", "weights must be at least 0 and not all 0"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_one_sentence(
    override: str, message: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failure(recipe, capsys, override)
    assert not list(recipe.parent.glob("run/checkpoints"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "there is no file {folder}/rows.jsonl"),
        ("", "{folder}/rows.jsonl has no rows"),
        ('{"query": "a cat", "positive": {"image": "gone.png"}}\n' * 3, "own: none of its 3 rows can be read"),
    ],
    ids=["no file", "empty", "no picture"],
)
def test_data_that_is_not_there_is_one_sentence(
    rows: str | None, message: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    if rows is not None:
        file.write_text(rows)
    said = failure(recipe, capsys, f"data.files={{own: {{path: {file}}}}}", "data.tasks={own: 1}")
    assert message.format(folder=tmp_path) in said
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_recipe_or_a_model_that_is_not_there_is_one_sentence(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "none.yaml" in failure(tmp_path / "none.yaml", capsys, "optim.steps=1")
    assert f"{tmp_path}/none" in failure(recipe, capsys, f"model.path={tmp_path}/none")


def test_a_batch_smaller_than_the_wanted_negatives_has_fewer(recipe: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe), "--set", "loss={info_nce: {hardest: 50}}"])
    assert ended.value.code == 0
    rows = read_lines(recipe.parent / "run" / "metrics.jsonl")
    assert len(rows) == 4
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_an_empty_recipe_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert "must hold the keys of a recipe, but holds None" in failure(tmp_path / "empty.yaml", capsys, "optim.steps=1")


def numbers(loss: float, **others: float) -> dict[str, float]:
    return {"loss": loss, "grad_norm": 1.0, **others}


@pytest.mark.fast
@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_ends_the_run_before_the_weights_change(name: str, value: float) -> None:
    with pytest.raises(TrainingFailed, match=rf"the {name} is {value} at step 7; lower optim\.lr"):
        Watch().check(7, {**numbers(1.0), name: value})


@pytest.mark.fast
def test_a_loss_that_stands_still_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    for step in range(3 * STILL_STEPS):
        watch.check(step, numbers(math.log(64) + 1e-4 * math.sin(step)))
    assert caplog.text.count("the loss has stood still at 4.159 for 100 steps") == 1
    assert "lower optim.lr or raise the loss's temperature" in caplog.text


@pytest.mark.fast
def test_a_loss_that_moves_a_little_is_left_alone() -> None:
    falling = [4.0 - 0.001 * step for step in range(STILL_STEPS)]
    noisy = [0.01 + 0.001 * math.sin(step) for step in range(STILL_STEPS)]
    assert stands_still(falling) is None
    assert stands_still(noisy) is None
    assert stands_still([1.0] * (STILL_STEPS - 1)) is None
    assert "nothing is left to learn" in str(stands_still([0.0] * STILL_STEPS))


@pytest.mark.fast
def test_batches_without_negatives_may_come_now_and_then() -> None:
    watch = Watch()
    for step in range(5 * LONELY_STEPS):
        watch.check(step, numbers(1.0 + step, negatives=float(step % LONELY_STEPS == 0)))
