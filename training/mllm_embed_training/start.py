"""The model directory that training starts from: opened, made from nothing, or copied under a soft prompt."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from mllm_embed.model_dir import ModelDir, open_model_dir, write_recipe
from mllm_embed.modeling.loading import Precision, load_base
from mllm_embed.recipe import soft_tokens
from mllm_embed.tasks import TASKS
from mllm_embed.weight_files import copy_companions
from mllm_embed_training import ranks, scratch
from mllm_embed_training.config import ConfigError, TrainConfig
from mllm_embed_training.examples import ExampleTask
from mllm_embed_training.run_files import written_whole

STORED: Mapping[torch.dtype, Precision] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""Precisions besides float32 that weights are stored in."""


def start_directory(config: TrainConfig, run_dir: Path, tasks: Mapping[str, ExampleTask[Any]]) -> ModelDir:
    """Open the model that training starts from, under the recipe of the embedder to be.

    A model from scratch, or one under a soft prompt, is made once and kept in the run directory.

    Raises:
        ConfigError: an adapter in place of a model, a template that the family lacks, a width that the vectors lack.
        IncompatibleCheckpoint: a mask, pooling or size of pictures that the family lacks.
    """
    section = config.model
    start = _opened(section.path) if section.path is not None else _from_scratch(config, run_dir / "start", tasks)
    changes: dict[str, Any] = {}
    if section.template is not None:
        templates = start.family.templates
        if section.template not in templates:
            raise ConfigError(f"model.template must be one of {', '.join(templates)}, but is {section.template!r}")
        changes |= {"template": section.template, "template_version": templates[section.template].version}
    if section.mask is not None:
        changes["attention"] = section.mask
    if section.pooling is not None:
        changes["pooling"] = section.pooling
    if section.max_pixels is not None:
        changes["max_pixels"] = section.max_pixels
    start = start.with_recipe(**changes)
    full = start.recipe.dimensions
    if wide := [width for width in config.loss.matryoshka.dimensions if width >= full]:
        raise ConfigError(f"loss.matryoshka.dimensions must be below the model's own {full}, but one is {wide[0]}")
    return _softened(start, section.soft_prompt, run_dir / "soft-start", config.seed)


def soft_token_ids(start: ModelDir, count: int) -> list[int]:
    """Return the ids of a soft prompt's control tokens."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(start.tokenizer_file)).get_vocab()
    return [vocabulary[token] for token in soft_tokens(count)]


def corpus(tasks: Mapping[str, ExampleTask[Any]]) -> Iterable[str]:
    """Yield the texts of every third row of a mixture, and what prompts are made of: the tokenizer learns on them."""
    for built_in in TASKS.values():
        yield from [f"{built_in.query}\n{built_in.target}\n"] * 200
    yield from ["system\n", "user\n", "assistant\n"] * 200
    for name, task in tasks.items():
        for index, row in enumerate(range(0, len(task.rows), 3)):
            yield from task.draw(task.rows[row], random.Random(f"{name}:{index}")).texts()


def _opened(path: str) -> ModelDir:
    start = open_model_dir(path)
    if start.adapter is not None:
        raise ConfigError(
            f"model.path must be a whole model, but {path} is an adapter: merge it with "
            f"`mllm-embed export {path} OUT` and start from OUT"
        )
    return start


def _from_scratch(config: TrainConfig, path: Path, tasks: Mapping[str, ExampleTask[Any]]) -> ModelDir:
    if not path.exists() and ranks.rank() == 0:
        with written_whole(path) as folder:
            scratch.create(config.model.scratch or scratch.ScratchModel(), corpus(tasks), folder, seed=config.seed)
    ranks.wait()
    return open_model_dir(path)


def _softened(start: ModelDir, count: int, path: Path, seed: int) -> ModelDir:
    """Return the model with a soft prompt of `count` tokens; one that has it already goes on learning it."""
    have = start.recipe.soft_prompt
    if count in (0, have):
        return start
    if have:
        raise ConfigError(f"model.soft_prompt must be {have}, which {start.path} has already, or 0, but is {count}")
    if not path.exists() and ranks.rank() == 0:
        with written_whole(path) as folder:
            _write_softened(start, count, folder, seed)
    ranks.wait()
    return open_model_dir(path)


def _write_softened(start: ModelDir, count: int, folder: Path, seed: int) -> None:
    """Copy a model with `count` more control tokens, which begin as words drawn at random (arXiv:2104.08691)."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import AutoConfig

    tokenizer = Tokenizer.from_file(str(start.tokenizer_file))
    words = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in soft_tokens(count)])
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[token] for token in soft_tokens(count)]

    stored = AutoConfig.from_pretrained(str(start.weights)).get_text_config().dtype
    model: Any = load_base(start.weights, precision=STORED.get(stored, "float32"))
    if max(ids) >= len(model.get_input_embeddings().weight):  # Qwen's published ones have rows to spare
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    drawn = torch.randperm(words, generator=torch.Generator().manual_seed(seed))[:count]
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[ids] = weight[drawn]
    model.save_pretrained(folder)
    copy_companions(start.weights, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_recipe(folder, start.with_recipe(soft_prompt=count).recipe)
