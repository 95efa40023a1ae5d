"""One contrastive step at real size: tokens per second, use of the device's arithmetic, peak memory; LoRA and QLoRA.

    python benchmarks/gpu_training.py
    python benchmarks/gpu_training.py --size qwen3_vl-2b --quantization nf4 --chunk 16
    python benchmarks/gpu_training.py --device cpu --size tiny --pixels 96 --chunk 16 --rounds 1 --batch 64

LoRA (rank 16, alpha 64) on random weights of the published sizes, GradCache, gradient checkpointing, bfloat16: pictures
with short texts as queries, texts as answers. Utilisation counts the operations of the plain step (one pass forward and
one back; the second pass forward of GradCache and the one of checkpointing are our own affair) against the rate of a
large matrix product, measured in the same run. Memory is that of the loaded model, and the peak above it and above the
inputs of the batch, which wait in the host's memory: of torch's tensors on a GPU, of the process on a CPU. It hardly
grows with --batch.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from memory import Memory
from real_sizes import PUBLISHED, SIZES, WORDS, matrix_rate, picture, synchronise, write_model
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.inputs import ModelInputs
from mllm_embed.modeling.loading import keep_unpacked, load_base
from mllm_embed.types import EmbedInput, Image
from mllm_embed_training.build import add_lora
from mllm_embed_training.config import LoraSection
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import info_nce
from mllm_embed_training.prompt_encoder import PromptEncoder
from mllm_embed_training.recompute import Checkpointing, use_checkpointing


def main() -> None:
    """Measure each size, with and without quantised weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=SIZES, help="again for more; all of 2B if left out")
    parser.add_argument("--quantization", action="append", choices=("none", "nf4"), help="both on a GPU if left out")
    parser.add_argument("--batch", type=int, default=1024, help="pairs per step")
    parser.add_argument("--chunk", type=int, default=32, help="rows per forward pass")
    parser.add_argument("--checkpointing", choices=("full", "selective", "none"), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=448, help="side of a picture")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="where the models are written")
    options = parser.parse_args()
    options.checkpointing = {"full": True, "selective": "selective", "none": False}[options.checkpointing]
    device = torch.device(options.device)
    rate = matrix_rate(device, torch.bfloat16)
    kinds = options.quantization or (["none", "nf4"] if device.type == "cuda" else ["none"])
    table = Table(
        *("model", "weights", "s/step", "tokens/s", "utilisation", "model MiB", "step MiB"),
        title=f"{options.batch} pairs, chunks of {options.chunk}, {options.pixels} px, {rate / 1e12:.1f} TFLOP/s",
    )
    for size in options.size or PUBLISHED:
        model_dir = write_model(size, options.pixels, options.folder)
        for kind in kinds:
            table.add_row(size, kind, *_measure(model_dir, kind, options, device, rate))
    Console().print(table)


def _measure(
    model_dir: ModelDir, kind: str, options: argparse.Namespace, device: torch.device, rate: float
) -> tuple[str, ...]:
    """Take steps with one model; return what the table says of it."""
    memory = Memory(device.type)
    encoder = _encoder(model_dir, kind, options, device)
    loaded = memory.peak()
    queries, answers = _pairs(encoder, options)
    tokens = sum(int(chunk["attention_mask"].sum()) for chunk in [*queries, *answers])
    operations = sum(len(side) * _operations(encoder, side[0], options.checkpointing) for side in (queries, answers))

    def step() -> Tensor:
        sides = (encoder.looked_at(chunks) for chunks in (queries, answers))
        loss = grad_cache_step(encoder.encode, *sides, _loss)
        encoder.model.zero_grad()
        return loss

    memory = Memory(device.type)
    step()
    synchronise(device)
    started = time.perf_counter()
    for _ in range(options.rounds):
        step()
    synchronise(device)
    seconds = (time.perf_counter() - started) / options.rounds
    use = operations / seconds / rate
    return f"{seconds:.2f}", f"{tokens / seconds:,.0f}", f"{use:.0%}", f"{loaded:,.0f}", f"{memory.peak():,.0f}"


def _encoder(model_dir: ModelDir, kind: str, options: argparse.Namespace, device: torch.device) -> PromptEncoder:
    """Load a model as a recipe with `lora`, `gradient_checkpointing` and, for nf4, `quantization` does."""
    precision: Any = "4bit" if kind == "nf4" else "bfloat16"
    model: Any = load_base(model_dir.weights, precision=precision, device=str(device))
    keep_unpacked(model)
    use_checkpointing(model, options.checkpointing)
    tuned = add_lora(model, model_dir, LoraSection(dropout=0.0), soft_prompt=0).train()
    return PromptEncoder(model_dir, tuned, chunk_size=options.chunk, device=device, bf16=True)


def _pairs(encoder: PromptEncoder, options: argparse.Namespace) -> tuple[list[ModelInputs], list[ModelInputs]]:
    """Return both sides of a batch, in chunks: pictures with texts, and texts."""
    texts = [" ".join(WORDS[number % 7 :]) + f" {number}" for number in range(options.batch)]
    shown = [picture(options.pixels, number) for number in range(options.batch)]
    asked = [EmbedInput.of(Image(image), text) for image, text in zip(shown, texts, strict=True)]
    queries = [encoder.render(item, "Find the text that describes this picture.") for item in asked]
    answers = [encoder.render(EmbedInput.of(text), "Represent the user's input.") for text in texts]
    return encoder.chunks(queries), encoder.chunks(answers)


def _operations(encoder: PromptEncoder, chunk: ModelInputs, checkpointing: Checkpointing) -> int:
    """Count what the plain step does for one chunk, without the pass that checkpointing adds."""
    model: Any = encoder.model
    model.gradient_checkpointing_disable()
    counter = FlopCounterMode(display=False)
    with counter:
        encoder.encode(chunk).sum().backward()
    use_checkpointing(model.get_base_model(), checkpointing)
    model.zero_grad()
    return int(counter.get_total_flops())


def _loss(queries: Tensor, candidates: Tensor) -> Tensor:
    labels = torch.arange(len(queries), device=queries.device)
    return info_nce(queries, candidates, labels, temperature=0.02)


if __name__ == "__main__":
    main()
