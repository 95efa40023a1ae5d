"""Pairs per second and peak memory of one training step: ours, VLM2Vec's own, and sentence-transformers'.

    python benchmarks/training_speed.py --vlm2vec CHECKOUT --vlm2vec-python PEERS/bin/python

All take one gradient-cached InfoNCE step (temperature 0.02) with LoRA (rank 16, alpha 64, no dropout) on a Qwen2-VL of
random weights: the same weights, rows and chunk size, and the gradients are compared before anything is timed. Queries
and every fourth target carry a picture, texts differ in length. `ours-selective` is ours with the recipe's
`gradient_checkpointing: selective`. Each trainer has a process of its own, and its own
environment if one is named; they take turns, one step each per round, so that a noisy machine is noisy for all.
VLM2Vec runs from its public checkout (docs/parity.md says how to set it up); its trainer has no backward pass on one
process, so its GradCache is called as it calls it on several. A peer whose options are not given is left out.

`small` is Qwen2-VL-2B scaled down: its language-model head has the same share of the weights (18 % of the layers').
Memory is the peak above the loaded model: of torch's tensors on a GPU, of the process on a CPU. It is that of a first,
untimed step in a process of its own, in which the C library gives large blocks back at once, so that on a CPU too it is
the memory in use, and not what is kept free for later.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from memory import LIVE_MEMORY
from numpy.typing import NDArray

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 64, "layers": 2, "heads": 2, "kv": 1, "mlp": 128, "vocab": 512, "grid": 4}
    | {"tower": 32, "depth": 2, "tower_heads": 2},
    "small": {"hidden": 512, "layers": 12, "heads": 8, "kv": 2, "mlp": 2048, "vocab": 16384, "grid": 16}
    | {"tower": 448, "depth": 8, "tower_heads": 8},
    "2b": {"hidden": 1536, "layers": 28, "heads": 12, "kv": 2, "mlp": 8960, "vocab": 151936, "grid": 32}
    | {"tower": 1280, "depth": 32, "tower_heads": 16},
}
"""`grid` is the picture's patches per side, of 14 pixels each."""
IMAGE_TOKEN = 3
FOLDER = Path(__file__).parent


@dataclass
class Trainer:
    """One trainer's process, and what it measured."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float]
    peak: float = 0.0
    padded: int = 0

    def step(self) -> None:
        """Let it take one step."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError(f"{self.name} has no pipes")
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with exit code {self.process.wait()}; its message is above")
        measured = json.loads(line)
        self.seconds.append(measured["seconds"])
        self.peak = max(self.peak, measured["peak_mib"])
        self.padded = measured["tokens"]


def main() -> None:
    """Measure and print the table."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_model(folder, options.size)
        _write_rows(folder, options.size, options.batch)
        peaks = {trainer[0]: _peak(trainer, folder, options) for trainer in _chosen(options)}
        differences = {name: _difference(folder, name) for name in peaks}
        with _started(_chosen(options), folder, options) as trainers:
            for trainer in trainers:
                trainer.step()  # warms up
                trainer.seconds.clear()
            for turn in range(options.rounds):
                for trainer in trainers[turn % len(trainers) :] + trainers[: turn % len(trainers)]:
                    trainer.step()
    _print_table(trainers, peaks, differences, options)


def _peak(trainer: tuple[str, str], folder: Path, options: argparse.Namespace) -> float:
    """Let a trainer take one step in a process of its own, which writes its gradients; return the peak, in MiB."""
    with _started([trainer], folder, options, LIVE_MEMORY) as (alone,):
        alone.step()
    return alone.peak


@contextmanager
def _started(
    chosen: list[tuple[str, str]], folder: Path, options: argparse.Namespace, environment: dict[str, str] | None = None
) -> Iterator[list[Trainer]]:
    trainers = [_start(*trainer, folder, options, environment or {}) for trainer in chosen]
    try:
        yield trainers
    finally:
        for trainer in trainers:
            trainer.process.kill()
            trainer.process.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm2vec", type=Path, help="checkout of TIGER-AI-Lab/VLM2Vec")
    parser.add_argument("--vlm2vec-python", default=sys.executable, help="interpreter of its environment")
    parser.add_argument("--sentence-transformers-python", help="interpreter of an environment that has it")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=32, help="pairs per step")
    parser.add_argument("--chunk", type=int, default=8, help="rows per forward pass")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each trainer")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, on a CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    for name in ("batch", "chunk", "rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, but is {getattr(options, name)}")
    if options.vlm2vec is not None and not (options.vlm2vec / "src" / "grad_cache").is_dir():
        parser.error(
            f"--vlm2vec must be a checkout of TIGER-AI-Lab/VLM2Vec, but {options.vlm2vec} has no src/grad_cache"
        )
    for python in (options.vlm2vec_python, options.sentence_transformers_python):
        if python is not None and shutil.which(python) is None:
            parser.error(f"there is no interpreter {python}")
    if options.device is None:
        import torch

        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def _chosen(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Names of the trainers and their interpreters."""
    chosen = [("ours", sys.executable), ("ours-selective", sys.executable)]
    if options.vlm2vec is not None:
        chosen.append(("vlm2vec", options.vlm2vec_python))
    if options.sentence_transformers_python is not None:
        chosen.append(("sentence-transformers", options.sentence_transformers_python))
    return chosen


def _start(name: str, python: str, folder: Path, options: argparse.Namespace, environment: dict[str, str]) -> Trainer:
    command = [python, str(FOLDER / "training_step.py"), name, str(folder), "--chunk", str(options.chunk)]
    command += ["--device", options.device, "--precision", options.precision]
    if name == "vlm2vec":
        command += ["--vlm2vec", str(options.vlm2vec.resolve())]
    environment = (
        os.environ | environment | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    )
    environment["PYTHONPATH"] = str(FOLDER.parent / "training")
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)  # noqa: S603  # ours
    return Trainer(name, process, [])


def _write_model(folder: Path, size: str) -> None:
    """Write configuration and random weights, in the form of published Qwen2-VL checkpoints."""
    import torch
    from safetensors.torch import save_file

    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.for_model(**model_config(size))
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    names = {name: name.replace("model.language_model.", "model.", 1) for name in model.state_dict()}
    names = {name: short.removeprefix("model.") if "visual." in name else short for name, short in names.items()}
    weights = {short: model.state_dict()[name].contiguous() for name, short in names.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model_config(size)))


def model_config(size: str) -> dict[str, Any]:
    """Return the configuration of a Qwen2-VL, as published ones are written."""
    s = SIZES[size]
    eighth = s["hidden"] // s["heads"] // 16  # half of a head's numbers are angles: 2, 3 and 3 eighths per axis
    return {
        "model_type": "qwen2_vl",
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "vocab_size": s["vocab"],
        "hidden_size": s["hidden"],
        "intermediate_size": s["mlp"],
        "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv"],
        "max_position_embeddings": 4096,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": s["layers"],
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2 * eighth, 3 * eighth, 3 * eighth]},
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "image_token_id": IMAGE_TOKEN,
        "video_token_id": 4,
        "vision_start_token_id": 5,
        "vision_end_token_id": 6,
        "vision_config": {
            "depth": s["depth"],
            "embed_dim": s["tower"],
            "hidden_size": s["hidden"],
            "num_heads": s["tower_heads"],
            "in_channels": 3,
            "in_chans": 3,
            "initializer_range": 0.02,
        },
    }


def _write_rows(folder: Path, size: str, batch: int) -> None:
    """Write token ids and patches: queries have a picture and a question, targets a text or, one in four, a picture."""
    rng = np.random.default_rng(0)
    grid, vocab = SIZES[size]["grid"], SIZES[size]["vocab"]
    arrays: dict[str, NDArray[Any]] = {}
    for side, pictured in (("queries", np.ones(batch)), ("targets", np.arange(batch) % 4 == 0)):
        rows = []
        for has_picture in pictured:
            text = rng.integers(10, vocab, int(rng.integers(6, 48)))
            rows.append(np.concatenate([np.full(grid * grid // 4, IMAGE_TOKEN) if has_picture else text[:0], text]))
        arrays[f"{side}/ids"] = np.concatenate(rows).astype(np.int64)
        arrays[f"{side}/lengths"] = np.array([len(row) for row in rows])
        arrays[f"{side}/grids"] = np.array([[1, grid, grid] if has else [0, 0, 0] for has in pictured])
        patches = int(arrays[f"{side}/grids"].prod(axis=1).sum())
        arrays[f"{side}/patches"] = rng.standard_normal((patches, 3 * 2 * 14 * 14)).astype(np.float32)
    np.savez(folder / "rows.npz", **arrays)  # type: ignore[arg-type]  # numpy types its other keywords too


def _difference(folder: Path, name: str) -> float:
    """Return the largest relative difference of a gradient from ours."""
    with np.load(folder / "ours.npz") as ours, np.load(folder / f"{name}.npz") as theirs:
        if set(ours) != set(theirs):
            raise SystemExit(f"{name} trains other weights than ours: {sorted(set(ours) ^ set(theirs))[:2]}")
        return max(float(np.linalg.norm(theirs[key] - ours[key]) / np.linalg.norm(ours[key])) for key in ours)


def _print_table(
    trainers: list[Trainer], peaks: dict[str, float], differences: dict[str, float], options: argparse.Namespace
) -> None:
    print(
        f"{options.size}: {options.batch} pairs in chunks of {options.chunk}, {options.device}, {options.precision}, "
        f"{options.threads} threads, median of {options.rounds} alternating rounds"
    )
    print(
        f"{'trainer':22} {'pairs/s':>8} {'spread':>15} {'ours is':>8} {'peak MiB':>9} {'tokens':>8} {'gradients':>10}"
    )
    ours = trainers[0]
    for trainer in trainers:
        rates = sorted(options.batch / seconds for seconds in trainer.seconds)
        ratio = median(theirs / own for own, theirs in zip(ours.seconds, trainer.seconds, strict=True))
        print(
            f"{trainer.name:22} {median(rates):8.2f} {rates[0]:7.2f}-{rates[-1]:7.2f} {ratio:7.2f}x "
            f"{peaks[trainer.name]:9.0f} {trainer.padded:8d} {differences[trainer.name]:10.1e}"
        )
    print("ours is: median over the rounds of how many times as fast ours was in the same round")
    print("tokens: of one step, padding included; gradients: largest relative difference from ours, over all tensors")


if __name__ == "__main__":
    main()
