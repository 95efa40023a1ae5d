"""The training recipe: a YAML file, checked whole before anything starts (all errors at once, unknown keys refused)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from mllm_embed.errors import MllmEmbedError
from mllm_embed.tasks import DEFAULT
from mllm_embed_training.objective import LossSection
from mllm_embed_training.recompute import Checkpointing
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
    soft_prompt: int = Field(default=0, ge=0)
    """Learned vectors in front of every prompt, as VladVA has them. They become the embeddings of so many new control
    tokens in a copy of the model, `RUN_DIR/soft-start`, so that every engine serves them."""
    mask: Literal["causal", "bidirectional"] | None = None
    """Attention mask of the embedder; default: the start's. MoCa's is bidirectional, which vLLM does not serve."""
    pooling: Literal["last_token", "mean"] | None = None
    """Which token states become the vector; default: the start's. MoCa's is the mean, which vLLM does not serve."""
    max_pixels: Positive | None = None
    """Largest area of a picture after resizing, in pixels; default: the start's. More of it is seen in more tokens."""
    quantization: Literal["nf4"] | None = None
    """QLoRA: keep the frozen weights in 4 bits (bitsandbytes, double quantisation); needs a lora section. The adapter
    is exported onto those weights, de-quantised."""
    shard: bool = False
    """Where several processes train: spread the frozen weights of the language model's layers over their GPUs (FSDP)
    instead of keeping all on each; needs a lora section. Steps are the same to the rounding of sums, and
    checkpoints fit any number of processes."""
    frozen: tuple[Literal["tower", "projector", "language"], ...] = ()
    """Parts that are not trained when all weights are; an adapter leaves them all as they are."""
    gradient_checkpointing: Checkpointing = False
    """Compute activations again in the backward pass instead of keeping them, for less memory and more time: `true` all
    of a layer's, `selective` all but what an MLP's first products gave."""
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
    dora: bool = False
    """Learn the weights' magnitudes apart (DoRA, arXiv:2402.09353); vLLM serves such an adapter merged only."""


class Instructions(Section):
    """What the model is told about the two sides of a pair."""

    query: str
    """About the query."""
    target: str
    """About the candidates."""


class FileSection(Section):
    """Rows of the user's own, as one task of the mixture (see docs/training-data.md)."""

    path: str
    """A file, or a pattern of several such as `shards/*.tar`: .jsonl, .parquet, .arrow, .csv, .tsv or .tar."""
    schema_: Literal["pairs", "mmeb", "llava", "webdataset"] = Field(default="pairs", alias="schema")
    """Names of the fields."""
    task: str | Instructions = DEFAULT
    """Instructions of rows that have none of their own: a built-in task's name, or both."""
    images: str | None = None
    """Folder that picture paths start from; default: the folder of the file."""
    negatives: int | None = Field(default=None, ge=0)
    """At most so many of a row's negatives, drawn anew each time; default: all."""
    learn: Literal["pairs", "answers"] = "pairs"
    """`answers`: next-token prediction of the positive, a text, in a dialogue that shows the query and asks the query's
    instruction; for the generative and the joint stage."""


class DataSection(Section):
    """The mixture."""

    tasks: dict[str, float]
    """Task name -> relative share of the groups."""
    files: dict[str, FileSection] = Field(default_factory=dict)
    """Task name -> rows of the user's own; `tasks` gives their shares."""
    max_corrupt: int = Field(default=100, ge=0)
    """Corrupt rows that are replaced by the next one and reported; one more ends the run."""
    distinct_answers: bool = False
    """Let no two rows of a group have the same answer, as far as there are enough others."""
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
    augment_ink: float | None = Field(default=None, ge=0, le=1)
    """Share of sprites (pictures with transparent parts) that are drawn in ink; default: three tenths of `augment`."""
    augment_texts: float = Field(default=0, ge=0, le=1)
    """Share of the pictures' texts that are written in capitals, mistyped, in another order or with an article."""
    workers: int = Field(default=0, ge=0)
    """Processes that prepare batches; 0 prepares in the training process."""

    @property
    def ink(self) -> float:
        """Share of sprites that are drawn in ink: none where nothing is to be augmented, unless the recipe says so."""
        return 0.3 * self.augment if self.augment_ink is None else self.augment_ink

    @model_validator(mode="after")
    def _a_plan_can_be_made(self) -> DataSection:
        if self.batch_size % self.group_size:
            raise ValueError(f"group_size must divide batch_size {self.batch_size}, but is {self.group_size}")
        if below := [name for name, share in self.tasks.items() if not 0 <= share < math.inf]:
            raise ValueError(f"a task's share must be at least 0, but that of {below[0]} is {self.tasks[below[0]]}")
        if not any(self.tasks.values()):
            raise ValueError("tasks needs at least one task with a share above 0")
        return self


Kind = Literal["text", "picture"]
"""What a teacher knows vectors of."""


class TeacherSection(Section):
    """Whose similarities are learned."""

    vectors: str
    """Parquet with the columns text (or picture) and vector; `mllm-embed teach` makes it."""
    tasks: tuple[str, ...] = ()
    """Of a joint stage, the tasks whose texts (or pictures) are distilled; a distill stage distills all."""
    temperature: float = Field(default=0.02, gt=0)
    """Divides the student's cosines when distilling; UniME's is unpublished."""
    teacher_temperature: float | None = Field(default=None, gt=0)
    """Divides the teacher's; default: the student's."""
    exclude_self: bool = False
    """Leaves each of them out of its own distribution when distilling, as UniME does not: it has nearly all of it."""


class ReconstructSection(Section):
    """What the reconstruct stage hides (MoCa, arXiv:2506.23115); the defaults are of its published script."""

    tokens: float = Field(default=0.4, gt=0, lt=1)
    """Share of the text tokens that are hidden and predicted in place."""
    patches: float = Field(default=0.5, gt=0, lt=1)
    """Share of the pictures' patches that give way to noise and are painted again."""
    patch_weight: float = Field(default=0.1, ge=0)
    """Factor of the patches' squared error beside the tokens' cross-entropy."""
    mask_token: str = "<|endoftext|>"
    """Control token that stands for a hidden text token."""


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


class EvaluateSection(Section):
    """Held-out retrieval, measured while training: Hit@1 in `heldout.jsonl`, the best model in `RUN_DIR/best`."""

    every: Positive
    """Steps between measurements."""
    suite: tuple[str, ...] = ()
    """Tasks of mini-mmeb, on the data package's held-out rows."""
    files: dict[str, FileSection] = Field(default_factory=dict)
    """Name -> held-out rows of the user's own."""
    limit: Positive = 500
    """Most candidates of a task of the suite, most rows of a file."""

    @model_validator(mode="after")
    def _something_to_measure(self) -> EvaluateSection:
        if not self.suite and not self.files:
            raise ValueError("evaluate needs suite or files")
        return self


class TrainConfig(Section):
    """One training stage."""

    stage: Literal["generative", "contrastive", "joint", "distill", "reconstruct"]
    """`generative`: answers in dialogues; `contrastive`: queries and positives; `distill`: the similarities that a
    teacher finds among texts; `joint`: steps of these kinds; `reconstruct`: hidden tokens and patches of pairs."""
    run_dir: str
    """Checkpoints, curves and the result are written here."""
    model: ModelSection
    data: DataSection
    optim: OptimSection
    lora: LoraSection | None = None
    loss: LossSection = LossSection()
    teacher: TeacherSection | None = None
    """Of texts: whose similarities the distill stage learns, or a joint stage for some tasks; guides `loss.cwcl`."""
    picture_teacher: TeacherSection | None = None
    """Of pictures, for some tasks of a joint stage."""
    reconstruct: ReconstructSection = ReconstructSection()
    evaluate: EvaluateSection | None = None
    seed: int = 0
    """Of everything random."""
    bf16: bool | Literal["auto"] = "auto"
    """Compute in bfloat16 (weights and optimiser stay in float32); `auto`: where the device has instructions for it."""
    device: str = "auto"
    """Torch device; auto takes a GPU where there is one."""
    checkpoint_every: Positive = 200
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _adapter_or_all_weights(self) -> TrainConfig:
        if self.model.quantization is not None and self.lora is None:
            raise ValueError("model.quantization needs a lora section: weights in 4 bits cannot be trained themselves")
        if self.model.shard and (self.lora is None or self.model.quantization is not None):
            raise ValueError("model.shard spreads frozen weights: it needs a lora section, and no model.quantization")
        if self.model.frozen and self.lora is not None:
            raise ValueError("model.frozen is for training without a lora section, which freezes all weights anyway")
        return self

    @model_validator(mode="after")
    def _teacher_for_distilling(self) -> TrainConfig:
        named = self.teacher.tasks if self.teacher is not None else ()
        if named and self.stage != "joint":
            raise ValueError(f"teacher.tasks is for a joint stage: a {self.stage} stage learns all tasks in one way")
        if unknown := sorted(set(named) - set(self.data.tasks)):
            raise ValueError(f"teacher.tasks: data.tasks has no {', '.join(unknown)}")
        if self.picture_teacher is not None:
            self._picture_teacher_has_tasks_of_its_own(self.picture_teacher.tasks, named)
        guided = self.stage in ("contrastive", "joint") and self.loss.guided
        if (self.stage == "distill" or guided or bool(named)) != (self.teacher is not None):
            raise ValueError(
                "the distill stage, loss.cwcl and the teacher.tasks of a joint stage need a teacher section, "
                "and nothing else has one"
            )
        return self

    def _picture_teacher_has_tasks_of_its_own(self, tasks: tuple[str, ...], others: tuple[str, ...]) -> None:
        if self.stage != "joint" or not tasks:
            raise ValueError("picture_teacher is for a joint stage, and needs tasks")
        if unknown := sorted(set(tasks) - set(self.data.tasks)):
            raise ValueError(f"picture_teacher.tasks: data.tasks has no {', '.join(unknown)}")
        if both := sorted(set(tasks) & set(others)):
            raise ValueError(f"a task has one teacher, but teacher and picture_teacher both name {', '.join(both)}")

    def teacher_of(self, task: str) -> Kind | None:
        """Return who finds the similarities that a task of pairs is learned by; None if it is learned by contrast."""
        if self.stage == "distill" or (self.teacher is not None and task in self.teacher.tasks):
            return "text"
        return "picture" if self.picture_teacher is not None and task in self.picture_teacher.tasks else None

    @model_validator(mode="after")
    def _both_sides_are_seen(self) -> TrainConfig:
        if self.stage == "reconstruct" and self.model.mask != "bidirectional":
            raise ValueError(
                "the reconstruct stage needs model.mask: bidirectional: what is hidden is told by what "
                "comes after it too"
            )
        return self

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
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold the keys of a recipe, but holds {raw!r}")
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
        if not isinstance(raw, dict):
            raise ConfigError(f"an override names a section, but {section} in {override!r} is {raw!r}")
    try:
        raw[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"an override's value must be YAML, but is {value!r}") from None
