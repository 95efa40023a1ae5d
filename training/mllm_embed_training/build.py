"""Recipe -> stage: opens or makes the model, attaches the adapter, picks the tasks. Recipes end here."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm_embed.errors import InvalidInput
from mllm_embed.families import Family
from mllm_embed.model_dir import ModelDir, file_sha256, write_recipe
from mllm_embed.modeling.attention_modes import attend_both_ways
from mllm_embed.modeling.loading import Precision, keep_unpacked, load_base
from mllm_embed.tasks import Task, get_task
from mllm_embed.weight_files import copy_companions
from mllm_embed_training import heldout, ranks, toy_tasks
from mllm_embed_training.answer_tasks import answer_tasks
from mllm_embed_training.augment import Pictures, Texts
from mllm_embed_training.config import ConfigError, FileSection, Kind, LoraSection, TeacherSection, TrainConfig
from mllm_embed_training.contrastive import ContrastiveStage
from mllm_embed_training.data_files import answer_task, file_task
from mllm_embed_training.device import computes_in_bf16, pick_device
from mllm_embed_training.distill import DistillStage
from mllm_embed_training.examples import ExampleTask
from mllm_embed_training.fused_lora import fuse_lora
from mllm_embed_training.generative import GenerativeStage
from mllm_embed_training.heldout import HeldOut
from mllm_embed_training.joint import JointStage
from mllm_embed_training.pair_tasks import pair_tasks
from mllm_embed_training.prompt_encoder import PromptEncoder
from mllm_embed_training.recompute import use_checkpointing
from mllm_embed_training.reconstruct import ReconstructStage
from mllm_embed_training.run_files import written_whole
from mllm_embed_training.sharded import shard_frozen
from mllm_embed_training.sources import Package, data_folder
from mllm_embed_training.stage import Stage
from mllm_embed_training.start import soft_token_ids, start_directory
from mllm_embed_training.teacher import TeacherVectors
from mllm_embed_training.trainer import seed_everything

Tasks = dict[str, ExampleTask[Any]]
MERGER = "merger"
"""What the projectors are called in families whose tower holds them."""


def build_stage(config: TrainConfig, run_dir: Path) -> tuple[Stage, ModelDir]:
    """Build the stage that a recipe describes, and the model directory that it starts from.

    Raises:
        ConfigError: an unknown task or template, or a width that the vectors do not have.
        DataNotFound: a task needs the data package and its folder is not given.
        DataFileError: a file of rows or of a teacher's vectors cannot be used.
    """
    answers, pairs = choose_tasks(config, run_dir / "cache")
    start = start_directory(config, run_dir, {**answers, **pairs})
    device = pick_device(config.device)
    seed_everything(config.seed)  # the adapter's first weights are random
    model = open_model(config, start, device)
    bf16 = computes_in_bf16(config.bf16, device)
    shared: dict[str, Any] = {"chunk_size": config.data.chunk_size, "device": device, "bf16": bf16}
    encoder = PromptEncoder(start, model, **shared)
    if config.stage == "reconstruct":
        return ReconstructStage(encoder, start, pairs, config.reconstruct), start
    stages: list[Stage] = []
    if answers:
        stages.append(GenerativeStage(start, model, answers, **shared))
    guide = None
    teachers: dict[Kind, TeacherSection | None] = {"text": config.teacher, "picture": config.picture_teacher}
    for kind, section in teachers.items():
        if section is None:
            continue
        teacher = TeacherVectors(Path(section.vectors), kind)
        if distilled := {name: task for name, task in pairs.items() if config.teacher_of(name) == kind}:
            how = section.model_dump(exclude={"vectors", "tasks"})
            stages.append(DistillStage(encoder, distilled, teacher=teacher, **how))
        if kind == "text" and config.loss.guided:
            guide = teacher
    if contrasted := {name: task for name, task in pairs.items() if config.teacher_of(name) is None}:
        stages.append(ContrastiveStage(encoder, contrasted, loss=config.loss, guide=guide))
    return (stages[0] if len(stages) == 1 else JointStage(*stages)), start


def choose_tasks(config: TrainConfig, cache: Path) -> tuple[Tasks, Tasks]:
    """Make the tasks that the mixture names: dialogues and pairs.

    Raises:
        ConfigError: there is no such task, or the stage cannot learn it.
        DataFileError: a file that cannot be read.
    """
    names = set(config.data.tasks)
    answers, pairs = dict(toy_tasks.answer_tasks()), dict(toy_tasks.pair_tasks())
    for name, file in config.data.files.items():
        (answers if file.learn == "answers" else pairs)[name] = partial(open_file, name, file, cache)
    if names - {*answers, *pairs}:
        package = Package(data_folder(config.data.folder))
        pictures = Pictures(config.data.augment, config.data.ink)
        answers |= answer_tasks(package, pictures)
        pairs |= pair_tasks(package, pictures, Texts(config.data.augment_texts))
    usable = {
        "generative": set(answers),
        "contrastive": set(pairs),
        "distill": set(pairs),
        "reconstruct": set(pairs),
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


def open_file(name: str, file: FileSection, cache: Path) -> ExampleTask[Any]:
    """Open one of the user's files as a task.

    Raises:
        ConfigError: its instructions name no task.
        DataFileError: it cannot be read.
    """
    try:
        task = get_task(file.task) if isinstance(file.task, str) else Task(name, file.task.query, file.task.target)
    except InvalidInput as error:
        raise ConfigError(f"data.files.{name}.task: {error}") from None
    shared: dict[str, Any] = {
        "schema": file.schema_,
        "task": task,
        "images": Path(file.images) if file.images is not None else None,
        "cache": cache / name,
    }
    if file.learn == "answers":
        return answer_task(file.path, **shared)
    return file_task(file.path, negatives=file.negatives, **shared)


def build_heldout(config: TrainConfig, stage: Stage, start: ModelDir) -> HeldOut | None:
    """Make what the recipe wants measured while training.

    Raises:
        ConfigError, DataFileError, CorruptRow: a held-out file that cannot be used.
        DataNotFound, EvaluationError: the suite's data is missing.
    """
    section, run_dir = config.evaluate, Path(config.run_dir)
    if section is None:
        return None
    tasks = [
        heldout.file_task(name, open_file(name, file, run_dir / "cache"), section.limit)
        for name, file in section.files.items()
    ]
    if section.suite:
        tasks += heldout.suite_tasks(data_folder(config.data.folder), section.suite, section.limit)
    device = pick_device(config.device)
    bf16 = computes_in_bf16(config.bf16, device)
    encoder = PromptEncoder(start, stage.model, chunk_size=config.data.chunk_size, device=device, bf16=bf16)
    return HeldOut(run_dir, tasks, heldout.trained_embedder(encoder), section.every)


def open_model(config: TrainConfig, start: ModelDir, device: torch.device) -> Any:
    """Load the model and mark what is trained: an adapter's weights, or all but the frozen parts."""
    section = config.model
    precision: Precision = "float32" if section.quantization is None else "4bit"
    spread = section.shard and ranks.count() > 1
    loaded_on = "cpu" if spread else str(device)
    model: Any = load_base(start.weights, precision=precision, attention=section.attention, device=loaded_on)
    keep_unpacked(model)
    if start.recipe.attention == "bidirectional":
        attend_both_ways(model.get_submodule(start.family.language_model))
    use_checkpointing(model, section.gradient_checkpointing)
    if config.lora is not None:
        tuned = add_lora(model, start, config.lora, section.soft_prompt)
        if spread:
            shard_frozen(tuned, model.get_submodule(start.family.language_model), device)
        return tuned
    for part in section.frozen:
        freeze(model, start.family, part)
    return model


def freeze(model: nn.Module, family: Family, part: str) -> None:
    """Stop training one part of the model: `tower`, `projector` or `language`."""
    for name, parameter in model.named_parameters():
        if part_of(name, family) == part:
            parameter.requires_grad_(False)


def part_of(name: str, family: Family) -> str:
    """Return which part of the model a weight belongs to."""
    if name.startswith(family.tower):
        return "projector" if family.projector is None and MERGER in name else "tower"
    if family.projector is not None and name.startswith(family.projector):
        return "projector"  # asked second: it may hold the tower
    return "language"


def add_lora(model: nn.Module, start: ModelDir, lora: LoraSection, soft_prompt: int) -> nn.Module:
    """Attach a fresh LoRA adapter to the language model, to tower and projector where asked, and to a soft prompt."""
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
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=targets,
        trainable_token_indices=soft_token_ids(start, soft_prompt) or None,
    )
    tuned: nn.Module = get_peft_model(model, settings)
    if not lora.dora:
        fuse_lora(tuned)
    return tuned


def save_result(stage: Stage, start: ModelDir, config: TrainConfig, out: Path) -> None:
    """Write what training made: a complete model directory, or an adapter directory that names its base.

    Args:
        stage: holds the trained model.
        start: the model that training started from, under the recipe of the model to be.
        config: the run's recipe.
        out: directory to write, whole or not at all, in place of what is there.
    """
    with written_whole(out) as folder:
        _write_result(stage, start, config, folder)


def _write_result(stage: Stage, start: ModelDir, config: TrainConfig, out: Path) -> None:
    model: Any = stage.model
    changes: dict[str, Any] = {"name": Path(config.run_dir).name}
    model.save_pretrained(out)
    if config.lora is None:
        copy_companions(start.weights, out)
    else:
        digest = file_sha256(out / "adapter_model.safetensors")
        base = os.path.relpath(start.weights.resolve(), out.resolve())  # `..` of a linked folder leads elsewhere
        changes |= {"base": base, "adapter": ".", "adapter_sha256": digest}
        changes["quantization"] = config.model.quantization
    if config.stage not in ("generative", "reconstruct"):
        changes["matryoshka_dimensions"] = config.loss.matryoshka.dimensions
    write_recipe(out, start.with_recipe(**changes).recipe)
