"""What a run was started with, written into its directory: recipe, versions, machine, data, and some examples."""

from __future__ import annotations

import base64
import io
import json
import platform
import random
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from mllm_embed.errors import InputError
from mllm_embed.model_dir import file_sha256
from mllm_embed.types import EmbedInput, Image, Text
from mllm_embed_training import ranks
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.device import computes_in_bf16, pick_device
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.examples import Dialogue, Example, ExampleTask, Side, opened
from mllm_embed_training.run_files import CONFIG, EXAMPLES, RECORD, write_file
from mllm_embed_training.sources import data_folder

PACKAGES = ("mllm-embed", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy", "pillow", "pyarrow")
"""Whose versions decide what a run computes."""
SHOWN_PER_TASK, SHOWN_NEGATIVES, THUMBNAIL = 2, 2, 160
"""Examples per task, negatives of each, and the longer edge of their pictures in pixels."""

Shown = list[tuple[str, list[dict[str, str]]]]
"""An example's sides by name; each a list of {"text": ...} and {"image": data URI}."""


def write_record(
    run_dir: Path, config: TrainConfig, tasks: Mapping[str, ExampleTask[Any]], identity: Mapping[str, str]
) -> None:
    """Write `config.json`, `run.json` and `examples.json`.

    Args:
        run_dir: made if absent.
        config: the recipe.
        tasks: the mixture's tasks.
        identity: what checkpoints of the run share: the start's fingerprint, the SHA-256 of the user's files.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    record = {
        "identity": {key: json.loads(value) for key, value in identity.items()},
        "package": package_checksums(config),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "bf16": computes_in_bf16(config.bf16, pick_device(config.device)),
            "threads": torch.get_num_threads(),
            "processes": ranks.count(),
        },
        "rows": {name: len(task.rows) for name, task in tasks.items()},
    }
    write_file(run_dir / CONFIG, config.model_dump_json(indent=2, by_alias=True) + "\n")
    write_file(run_dir / RECORD, json.dumps(record, indent=2) + "\n")
    shown = {name: shown_examples(task) for name, task in tasks.items()}
    write_file(run_dir / EXAMPLES, json.dumps(shown) + "\n")


def shown_examples(task: ExampleTask[Any]) -> list[Shown]:
    """Return the first examples of a task that can be read."""
    shown: list[Shown] = []
    for index in range(len(task.rows)):
        if len(shown) == SHOWN_PER_TASK:
            break
        try:
            shown.append(_shown(task.draw(task.rows[index], random.Random(index))))
        except (CorruptRow, InputError):
            continue  # the stream reports it when it is drawn
    return shown


def _shown(example: Example | Dialogue) -> Shown:
    if isinstance(example, Dialogue):
        return [("asked", _side(Side(example.content, ""))), ("answer", [{"text": example.answer}])]
    instruction = [{"text": f"“{example.task.query}”"}]
    sides = [("query", [*instruction, *_side(example.query)]), ("positive", _side(example.positive))]
    sides += [("positive too", _side(side)) for side in example.also[:SHOWN_NEGATIVES]]
    return sides + [("negative", _side(side)) for side in example.negatives[:SHOWN_NEGATIVES]]


def _side(side: Side) -> list[dict[str, str]]:
    item, pictures = opened(EmbedInput(side.content))
    images = iter(pictures)
    return [
        {"text": part.text} if isinstance(part, Text) else {"image": _thumbnail(next(images))}
        for part in item.content
        if isinstance(part, Text | Image)
    ]


def _thumbnail(image: PIL.Image.Image) -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def package_checksums(config: TrainConfig) -> dict[str, str]:
    """Return the SHA-256 of the data package's files by name, if the run reads it."""
    if all(name in config.data.files or name.startswith("toy-") for name in config.data.tasks):
        return {}
    return {file.name: file_sha256(file) for file in sorted(data_folder(config.data.folder).glob("*.parquet"))}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
