"""A resumed run is the run that was never stopped; a damaged checkpoint is passed over; nothing is half-written."""

import logging
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.loading import load_base
from mllm_embed_training import checkpoint
from mllm_embed_training.errors import TrainingFailed


def make(seed: int = 0, width: int = 8) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5), nn.Linear(width, 1))
    model[0].bias.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trained, lr=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        noise = random.random() + float(np.random.rand())  # noqa: NPY002  # both global states must be kept
        loss: Tensor = (model(torch.randn(6, 4)) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def save(run_dir: Path, step: int, **options: Any) -> Path:
    model, optimizer = make()
    return checkpoint.save(run_dir, step, model=model, optimizer=optimizer, extra={"step": step}, **options)


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.fast
def test_a_resumed_run_ends_bit_identical(tmp_path: Path) -> None:
    model, optimizer = make()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # the global state
    train(model, optimizer, 3)
    extra = {"position": 17, "schedule": {"rates": (0.1, 0.2)}, "order": torch.arange(3)}
    checkpoint.save(tmp_path, 3, model=model, optimizer=optimizer, extra=extra)
    train(model, optimizer, 3)

    resumed, resumed_optimizer = make()
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002  # the global state
    torch.manual_seed(9)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    loaded = checkpoint.load(newest, model=resumed, optimizer=resumed_optimizer)
    assert loaded["position"] == 17
    assert loaded["schedule"] == {"rates": (0.1, 0.2)}
    assert torch.equal(loaded["order"], torch.arange(3))
    train(resumed, resumed_optimizer, 3)
    assert equal(weights(resumed), weights(model))


@pytest.mark.fast
def test_only_trainable_weights_are_kept(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert sorted(load_file(save(tmp_path, 1) / "weights.safetensors")) == ["0.weight", "2.bias", "2.weight"]


def test_an_adapters_checkpoint_holds_the_adapter_alone_and_full_training_everything(
    tiny_dir: ModelDir, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    def names(model: nn.Module, folder: Path) -> set[str]:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        path = checkpoint.save(folder, 1, model=model, optimizer=optimizer, extra={})
        checkpoint.load(path, model=model, optimizer=optimizer)
        return set(load_file(path / "weights.safetensors"))

    full: Any = load_base(tiny_dir.weights)
    parameters = {name for name, _ in full.named_parameters()}
    assert names(full, tmp_path / "full") == parameters
    tuned = get_peft_model(full, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    stored = names(tuned, tmp_path / "lora")
    assert stored
    assert all("lora_" in name for name in stored)


@pytest.mark.fast
def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None


@pytest.mark.fast
def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 9, 10, 11):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00000011"]
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints/step-00000011"


@pytest.mark.fast
def test_saving_after_a_damaged_later_one_keeps_what_was_just_saved(tmp_path: Path) -> None:
    (save(tmp_path, 9) / "manifest.json").unlink()
    assert save(tmp_path, 5, keep=1).exists()
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints/step-00000005"


@pytest.mark.fast
def test_the_same_step_is_replaced_and_leftovers_are_swept(tmp_path: Path) -> None:
    path = save(tmp_path, 4)
    (path / "weights.safetensors").write_bytes(b"")
    (path.parent / ".unfinished-step-00000005").mkdir()
    (path.parent / ".replaced-step-00000003").mkdir()
    save(tmp_path, 4)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert checkpoint.latest(tmp_path) == path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.fast
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "state.pt", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Any
) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    if name == "manifest.json" and damage is flip:
        (bad / name).write_text("[]")
    else:
        damage(bad / name)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest(tmp_path) == good
    assert str(bad) in caplog.text
    assert name in caplog.text
    model, optimizer = make()
    with pytest.raises(IncompatibleCheckpoint, match=f"step-00000002 is damaged: .*{name}"):
        checkpoint.load(bad, model=model, optimizer=optimizer)


@pytest.mark.fast
def test_another_models_checkpoint_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    wider, optimizer = make(seed=3, width=9)
    before = weights(wider)
    with pytest.raises(IncompatibleCheckpoint, match=r"0\.weight must have the shape \[9, 4\], but has \[8, 4\]"):
        checkpoint.load(path, model=wider, optimizer=optimizer)
    assert equal(weights(wider), before)
    other = nn.Linear(4, 1)
    with pytest.raises(IncompatibleCheckpoint, match=r"the first is 0\.weight, which only the checkpoint has"):
        checkpoint.load(path, model=other, optimizer=torch.optim.AdamW(other.parameters()))
    model, _ = make()
    too_many = torch.optim.AdamW(model.parameters())
    with pytest.raises(IncompatibleCheckpoint, match="another optimiser"):
        checkpoint.load(path, model=model, optimizer=too_many)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """What a full disk looks like to a process, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.fast
@pytest.mark.parametrize("size", [100, 1500])
def test_a_full_disk_leaves_the_previous_checkpoint_and_no_rubbish(tmp_path: Path, size: int) -> None:
    good = save(tmp_path, 1)
    with file_size_limit(size), pytest.raises(TrainingFailed, match="step-00000002 could not be written"):
        save(tmp_path, 2)
    assert [path.name for path in good.parent.iterdir()] == [good.name]
    assert checkpoint.latest(tmp_path) == good


@pytest.mark.fast
def test_a_checkpoint_must_be_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        save(tmp_path, 1, keep=0)
