"""The training recipe: a YAML file, checked whole before anything starts (all errors at once, unknown keys refused)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from mllm_embed.errors import MllmEmbedError
from mllm_embed_training.objective import LossSection
from mllm_embed_training.scratch import ScratchModel
from mllm_embed_training.section import Positive, Section


class ConfigError(MllmEmbedError):
    """A recipe that cannot be run; the message lists every fault."""


class ModelSection(Section):
    """Where training starts: from nothing, or from a model directory."""

    scratch: ScratchModel | None = None
    """Make a model with random weights of this shape."""
    path: str | None = None
    """Start from this model directory or hub model."""
    template: str | None = None
    """Prompt format of the embedder to be; default: the family's."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel while training; `eager` is quicker on a CPU for sequences of a few dozen tokens."""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSection:
        if (self.scratch is None) == (self.path is None):
            raise ValueError("model needs exactly one of scratch and path")
        return self


class LoraSection(Section):
    """The adapter; without this section all weights are trained."""

    r: Positive = 16
    """Rank."""
    alpha: Positive = 64
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout before the adapter."""
    tower: bool = False
    """Adapt the vision tower and projector too."""


class DataSection(Section):
    """The mixture."""

    tasks: dict[str, float]
    """Task name -> relative share of the groups."""
    folder: str | None = None
    """The data package; default: the environment variable MLLM_EMBED_DATA."""
    batch_size: Positive
    """Examples per step."""
    group_size: Positive
    """Examples of one task that stand together; equal to batch_size for homogeneous batches."""
    chunk_size: Positive = 64
    """Rows per forward pass: micro-batch of the generative stage, GradCache chunk of the contrastive one."""
    augment: float = Field(default=0.5, ge=0, le=1)
    """Share of the pictures that are augmented."""
    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches; 0 prepares in the training process."""


class OptimSection(Section):
    """AdamW with warm-up, a flat middle and a linear decay to zero."""

    steps: Positive
    """Optimiser steps in all."""
    lr: float = Field(gt=0)
    """Peak learning rate."""
    warmup_steps: int = Field(default=50, ge=0)
    """Linear warm-up."""
    decay_steps: int = Field(default=0, ge=0)
    """The last steps, in which the rate falls to zero."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW weight decay, on matrices only."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""


class TrainConfig(Section):
    """One training stage."""

    stage: Literal["generative", "contrastive", "joint"]
    """`generative`: answers in dialogues; `contrastive`: queries and positives; `joint`: steps of both kinds."""
    run_dir: str
    """Checkpoints, curves and the result are written here."""
    model: ModelSection
    data: DataSection
    optim: OptimSection
    lora: LoraSection | None = None
    loss: LossSection = LossSection()
    seed: int = 0
    """Of everything random."""
    bf16: bool = True
    """Compute in bfloat16 (weights and optimiser stay in float32)."""
    device: str = "auto"
    """Torch device; auto takes a GPU where there is one."""
    checkpoint_every: Positive = 200
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _joint_is_homogeneous(self) -> TrainConfig:
        if self.stage == "joint" and self.data.group_size != self.data.batch_size:
            raise ValueError("a joint stage needs data.group_size equal to data.batch_size: a step is of one kind")
        return self


def load_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a recipe and apply overrides of the form `optim.steps=100`.

    Raises:
        ConfigError: unreadable file, unknown keys, wrong types; every fault in one message.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    for override in overrides or []:
        _apply(raw, override)
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {faults}") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    key, found, value = override.partition("=")
    if not found:
        raise ConfigError(f"an override has the form section.key=value, but is {override!r}")
    *sections, last = key.split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
    raw[last] = yaml.safe_load(value)
