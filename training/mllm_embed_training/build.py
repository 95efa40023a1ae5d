"""Recipe -> stage: opens or makes the model, attaches the adapter, picks the tasks. Recipes end here."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm_embed.model_dir import ModelDir, file_sha256, open_model_dir, write_recipe
from mllm_embed.modeling.loading import load_base
from mllm_embed.tasks import TASKS
from mllm_embed_training import ranks, scratch, toy_tasks
from mllm_embed_training.answer_tasks import answer_tasks
from mllm_embed_training.augment import Pictures
from mllm_embed_training.config import ConfigError, LoraSection, TrainConfig
from mllm_embed_training.contrastive import ContrastiveStage
from mllm_embed_training.examples import ExampleTask
from mllm_embed_training.generative import GenerativeStage
from mllm_embed_training.joint import JointStage
from mllm_embed_training.pair_tasks import pair_tasks
from mllm_embed_training.sources import Package, data_folder
from mllm_embed_training.stage import Stage
from mllm_embed_training.trainer import seed_everything

Tasks = dict[str, ExampleTask[Any]]


def build_stage(config: TrainConfig, run_dir: Path) -> tuple[Stage, ModelDir]:
    """Build the stage that a recipe describes, and the model directory that it starts from.

    Raises:
        ConfigError: an unknown task or template.
        DataNotFound: a task needs the data package and its folder is not given.
    """
    answers, pairs = choose_tasks(config)
    start = start_directory(config, run_dir, {**answers, **pairs})
    device = pick_device(config.device)
    seed_everything(config.seed)  # the adapter's first weights are random
    model: Any = load_base(start.weights, attention=config.model.attention).to(device)
    if config.lora is not None:
        model = add_lora(model, start, config.lora)
    shared: dict[str, Any] = {"chunk_size": config.data.chunk_size, "device": device, "bf16": config.bf16}
    if config.stage == "generative":
        return GenerativeStage(start, model, answers, **shared), start
    contrastive = ContrastiveStage(start, model, pairs, loss=config.loss, **shared)
    if config.stage == "contrastive":
        return contrastive, start
    return JointStage(GenerativeStage(start, model, answers, **shared), contrastive), start


def choose_tasks(config: TrainConfig) -> tuple[Tasks, Tasks]:
    """Make the tasks that the mixture names: dialogues and pairs.

    Raises:
        ConfigError: there is no such task, or the stage cannot learn it.
    """
    names = set(config.data.tasks)
    answers, pairs = dict(toy_tasks.answer_tasks()), dict(toy_tasks.pair_tasks())
    if names - {*answers, *pairs}:
        package = Package(data_folder(config.data.folder))
        pictures = Pictures(config.data.augment)
        answers |= answer_tasks(package, pictures)
        pairs |= pair_tasks(package, pictures)
    usable = {
        "generative": set(answers),
        "contrastive": set(pairs),
        "joint": {*answers, *pairs},
    }[config.stage]
    if unknown := sorted(names - usable):
        raise ConfigError(
            f"data.tasks: the {config.stage} stage has no such task: {', '.join(unknown)}; "
            f"there are {', '.join(sorted(usable))}"
        )
    return (
        {name: answers[name]() for name in config.data.tasks if name in answers},
        {name: pairs[name]() for name in config.data.tasks if name in pairs},
    )


def start_directory(config: TrainConfig, run_dir: Path, tasks: Mapping[str, ExampleTask[Any]]) -> ModelDir:
    """Open the model that training starts from; a model from scratch is made once and kept in the run directory."""
    if config.model.path is not None:
        start = open_model_dir(config.model.path)
    else:
        path = run_dir / "start"
        if not (path / "config.json").exists() and ranks.rank() == 0:
            scratch.create(config.model.scratch or scratch.ScratchModel(), corpus(tasks), path, seed=config.seed)
        ranks.wait()
        start = open_model_dir(path)
    if config.model.template is None:
        return start
    templates = start.family.templates
    if config.model.template not in templates:
        raise ConfigError(f"model.template must be one of {', '.join(templates)}, but is {config.model.template!r}")
    chosen = templates[config.model.template]
    return start.with_recipe(template=chosen.name, template_version=chosen.version)


def corpus(tasks: Mapping[str, ExampleTask[Any]]) -> Iterable[str]:
    """Yield the texts of every third row of a mixture, and what prompts are made of: the tokenizer learns on them."""
    for built_in in TASKS.values():
        yield from [f"{built_in.query}\n{built_in.target}\n"] * 200
    yield from ["system\n", "user\n", "assistant\n"] * 200
    for name, task in tasks.items():
        for index, row in enumerate(task.rows[::3]):
            yield from task.draw(row, random.Random(f"{name}:{index}")).texts()


def add_lora(model: nn.Module, start: ModelDir, lora: LoraSection) -> nn.Module:
    """Attach a fresh LoRA adapter to the language model, and to tower and projector where asked."""
    from peft import LoraConfig, get_peft_model

    family = start.family
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (
            (name.startswith(family.language_model) and name.endswith(family.lora_targets))
            or (lora.tower and name.startswith(family.tower) and name.endswith(family.tower_targets))
        )
    ]
    settings = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    tuned: nn.Module = get_peft_model(model, settings)
    return tuned


def pick_device(name: str) -> torch.device:
    """Return the device; `auto` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"  # which one, the rank has chosen
    return torch.device(name)


def save_result(stage: Stage, start: ModelDir, config: TrainConfig, out: Path) -> None:
    """Write what training made: a complete model directory, or an adapter directory that names its base.

    Args:
        stage: holds the trained model.
        start: the model that training started from, under the recipe of the model to be.
        config: the run's recipe.
        out: directory to write; a finished run repeated writes the same again.
    """
    out.mkdir(parents=True, exist_ok=True)
    model: Any = stage.model
    changes: dict[str, Any] = {"name": Path(config.run_dir).name}
    model.save_pretrained(out)
    if config.lora is None:
        for file in start.weights.glob("*.json"):
            if not (out / file.name).exists():
                shutil.copyfile(file, out / file.name)
    else:
        digest = file_sha256(out / "adapter_model.safetensors")
        base = os.path.relpath(start.weights, out)
        changes |= {"base": base, "adapter": ".", "adapter_sha256": digest}
    if config.stage != "generative":
        changes["matryoshka_dimensions"] = config.loss.matryoshka.dimensions
    write_recipe(out, start.with_recipe(**changes).recipe)
