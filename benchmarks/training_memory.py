"""Peak memory of one contrastive step by its batch size, at one chunk size: it hardly grows.

    python benchmarks/training_memory.py
    python benchmarks/training_memory.py --size qwen2_vl-2b --chunk 64 --device cuda

Every batch size has a process of its own, which takes one step as `mllm-embed train` does: symmetric InfoNCE with its
mask of duplicates, LoRA (rank 16, alpha 64), float32, short texts on both sides. The peak is that of the process on a
CPU, of torch's tensors on a GPU, above the loaded model and the batch's inputs. Of it, `vectors` are the vectors of the
batch, `mask` one byte for every query and candidate; `growth` compares the peak without vectors with the first batch's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from memory import LIVE_MEMORY, Memory
from real_sizes import SIZES, WORDS, write_model
from rich.console import Console
from rich.table import Table

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.loading import load_base
from mllm_embed.types import EmbedInput
from mllm_embed_training.build import add_lora
from mllm_embed_training.config import LoraSection
from mllm_embed_training.contrastive import ContrastiveStage, PreparedExample
from mllm_embed_training.objective import LossSection
from mllm_embed_training.prompt_encoder import PromptEncoder

MIB = 2**20


def main() -> None:
    """Measure every batch size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 1024, 4096], help="pairs per step")
    parser.add_argument("--chunk", type=int, default=32, help="rows per forward pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="where the models are written")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # a process that measures one size
    options = parser.parse_args()
    model_dir = write_model(options.size, 96, options.folder)
    if options.alone:
        print(_peak(model_dir, options.batch[0], options))
    else:
        _print_table(model_dir.recipe.dimensions, options)


def _print_table(width: int, options: argparse.Namespace) -> None:
    table = Table(
        *("pairs", "peak MiB", "vectors MiB", "mask MiB", "growth"),
        title=f"{options.size}, chunks of {options.chunk}, {options.device}",
    )
    first = 0.0
    for batch in options.batch:
        peak, vectors, mask = _measure(batch, options), 2 * batch * width * 4 / MIB, batch * batch / MIB
        first = first or peak - vectors
        growth = (peak - vectors) / first - 1
        table.add_row(f"{batch:,}", f"{peak:.0f}", f"{vectors:.1f}", f"{mask:.1f}", f"{growth:+.0%}")
    Console().print(table)


def _measure(batch: int, options: argparse.Namespace) -> float:
    """Return the peak of a batch size, in MiB, measured in a process of its own."""
    command = [sys.executable, __file__, "--alone", "--batch", str(batch), "--size", options.size]
    command += ["--chunk", str(options.chunk), "--device", options.device, "--folder", str(options.folder)]
    environment = os.environ | LIVE_MEMORY
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603  # ours
    return float(done.stdout.split()[-1])


def _peak(model_dir: ModelDir, batch: int, options: argparse.Namespace) -> float:
    device = torch.device(options.device)
    model: Any = load_base(model_dir.weights, device=options.device)
    tuned = add_lora(model, model_dir, LoraSection(dropout=0.0), soft_prompt=0).train()
    for parameter in tuned.parameters():  # they are still in their file, to be read when first used
        parameter.data = parameter.data.clone()
    encoder = PromptEncoder(model_dir, tuned, chunk_size=options.chunk, device=device, bf16=False)
    stage = ContrastiveStage(encoder, {}, loss=LossSection())
    rows = stage.collate([_pair(encoder, number) for number in range(batch)])
    stage.backward(stage.collate([_pair(encoder, number) for number in range(2)]))  # loads what a first step loads
    memory = Memory(device.type)
    stage.backward(rows)
    return memory.peak()


def _pair(encoder: PromptEncoder, number: int) -> PreparedExample:
    """Return a short text, and another one as its answer; all as long, so that all chunks take as much."""
    text = " ".join(WORDS[number % 7 : number % 7 + 5])
    query = encoder.render(EmbedInput.of(f"{text} {number:05}"), "")
    answer = encoder.render(EmbedInput.of(f"{number:05} {text}"), "")
    return PreparedExample(query, [answer], f"query {number}", [f"answer {number}"], [1.0], [float("nan")], None)


if __name__ == "__main__":
    main()
