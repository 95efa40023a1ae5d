"""Embeddings per second at real size, against what the device's arithmetic allows; sdpa beside flash-attn.

    python benchmarks/gpu_embedding.py
    python benchmarks/gpu_embedding.py --size qwen3_vl-2b --batch 64 --attention sdpa
    python benchmarks/gpu_embedding.py --device cpu --size tiny --pixels 96 --batch 2 --rounds 1 --attention sdpa

Weights are random and have the published sizes, so nothing is downloaded. An item is a picture with a short text. The
limit is the rate of a large matrix product, measured in the same run, over the operations of one item. Vectors of the
second kernel are compared with those of the first; below a cosine of 0.999 the command fails.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from memory import Memory
from numpy.typing import NDArray
from real_sizes import PUBLISHED, SIZES, WORDS, matrix_rate, picture, synchronise, write_model
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.modeling.loading import AttentionKernel, Precision, load_model
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, Image
from mllm_embed.vectors import finish

LEAST_COSINE = 0.999


def main() -> None:
    """Measure each size with each kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=SIZES, help="again for more; all of 2B if left out")
    parser.add_argument("--attention", action="append", choices=("sdpa", "flash_attention_2"), help="both if left out")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pixels", type=int, default=448, help="side of a picture")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="where the models are written")
    options = parser.parse_args()
    device = torch.device(options.device)
    rate = matrix_rate(device, getattr(torch, options.precision))
    table = Table(
        *("model", "attention", "items/s", "limit", "share", "peak MiB", "least cosine"),
        title=f"{options.pixels} px, batches of {options.batch}, {options.precision}, {rate / 1e12:.1f} TFLOP/s",
    )
    worst = 1.0
    for size in options.size or PUBLISHED:
        model_dir = write_model(size, options.pixels, options.folder)
        first: NDArray[np.float32] | None = None
        for attention in options.attention or ("sdpa", "flash_attention_2"):
            found = Run(model_dir, attention, options, device)
            first = found.vectors if first is None else first
            cosine = float((first * found.vectors).sum(axis=1).min())
            worst = min(worst, cosine)
            limit = rate / found.operations
            speed = (f"{found.rate:.1f}", f"{limit:.1f}", f"{found.rate / limit:.0%}")
            table.add_row(size, attention, *speed, f"{found.peak:,.0f}", f"{cosine:.5f}")
    Console().print(table)
    if worst < LEAST_COSINE:
        raise SystemExit(f"the kernels give different vectors: cosine {worst:.5f}, at least {LEAST_COSINE} is wanted")


class Run:
    """One model with one kernel.

    Attributes:
        vectors: float32 unit vectors of one batch, shape [B, D].
        operations: floating-point operations of one item.
        rate: items per second.
        peak: memory above the loaded model, in MiB.
    """

    def __init__(
        self, model_dir: ModelDir, attention: AttentionKernel, options: argparse.Namespace, device: torch.device
    ) -> None:
        precision = cast("Precision", options.precision)
        model = load_model(model_dir, precision=precision, attention=attention, device=str(device))
        memory = Memory(device.type)
        batches = [_batch(model_dir, options, number, device) for number in range(2)]
        with torch.inference_mode():
            counter = FlopCounterMode(display=False)
            with counter:
                vectors = encode(model, batches[0])
            self.vectors = finish(vectors.float().cpu().numpy())
            self.operations = counter.get_total_flops() / options.batch
            encode(model, batches[1])
            synchronise(device)
            started = time.perf_counter()
            for number in range(options.rounds):
                encode(model, batches[number % 2])
            synchronise(device)
        self.rate = options.rounds * options.batch / (time.perf_counter() - started)
        self.peak = memory.peak()


def _batch(model_dir: ModelDir, options: argparse.Namespace, number: int, device: torch.device) -> ModelInputs:
    """Build the inputs of a batch of pictures with texts."""
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    prompts = []
    for seed in range(number * options.batch, (number + 1) * options.batch):
        shown = picture(options.pixels, seed)
        text = " ".join(WORDS[seed % 7 :])
        prompts.append(renderer.render(EmbedInput.of(Image(shown), text), "Represent the user's input.", [shown]))
    inputs = InputBuilder(model_dir, renderer.image_token_id).build(prompts)
    dtype = getattr(torch, options.precision)
    return {
        name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
        for name, tensor in inputs.items()
    }


if __name__ == "__main__":
    main()
