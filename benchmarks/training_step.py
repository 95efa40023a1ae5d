"""One trainer in a process of its own: takes a step for every line it reads, and says what the step took.

Started by training_speed.py, which wrote the model and the rows; each trainer runs in the environment of its package.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from memory import Memory
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from mllm_embed_training.recompute import Checkpointing

TEMPERATURE = 0.02
SIDES = ("queries", "targets")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Step = Callable[[], float]


def main() -> None:
    """Load, then serve steps until the pipe closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trainer", choices=TRAINERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunk", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--vlm2vec", type=Path)
    options = parser.parse_args()
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # the public code prints
        rows = Rows(options.folder / "rows.npz")
        model, step, tokens = TRAINERS[options.trainer](options, rows)
        for parameter in model.parameters():  # those of some are still in their file, to be read when first used
            parameter.data = parameter.data.clone()
        memory = Memory(options.device)
        for number, _ in enumerate(sys.stdin):
            model.zero_grad()
            seconds = _timed(step, options.device)
            if number == 0:
                np.savez(options.folder / f"{options.trainer}.npz", **gradients(model))  # type: ignore[arg-type]
            answers.write(json.dumps({"seconds": seconds, "peak_mib": memory.peak(), "tokens": tokens}) + "\n")
            answers.flush()


def _timed(step: Step, device: str) -> float:
    synchronise = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    synchronise()
    started = time.perf_counter()
    step()
    synchronise()
    return time.perf_counter() - started


class Rows:
    """The batch, row by row."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            stored = dict(arrays)
        self.ids: dict[str, list[Tensor]] = {}
        self.grids: dict[str, Tensor] = {}
        self.patches: dict[str, list[Tensor]] = {}
        for side in SIDES:
            self.ids[side] = list(torch.from_numpy(stored[f"{side}/ids"]).split(stored[f"{side}/lengths"].tolist()))
            self.grids[side] = torch.from_numpy(stored[f"{side}/grids"])
            counts = self.grids[side].prod(dim=1).tolist()
            self.patches[side] = list(torch.from_numpy(stored[f"{side}/patches"]).split(counts))

    def padded(self, side: str, rows: Sequence[int], padding: str) -> tuple[Tensor, Tensor]:
        """Return token ids and mask of some rows, padded to the longest of them."""
        chosen = [self.ids[side][row] for row in rows]
        ids = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_side=padding)
        ones = [torch.ones_like(row) for row in chosen]
        return ids, nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=padding)

    def chunk(self, side: str, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return some rows as transformers takes them, with the positions that VLM2Vec gives to tokens."""
        ids, mask = self.padded(side, rows, "right")
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs["position_ids"] = torch.arange(ids.shape[1]).expand(3, *ids.shape)
        grids = self.grids[side][list(rows)]
        if len(pictured := grids[grids.sum(dim=1) > 0]):
            inputs["pixel_values"] = torch.cat([self.patches[side][row] for row in rows])
            inputs["image_grid_thw"] = pictured
        return inputs


def gradients(model: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return all gradients, under names that the trainers share."""
    found = {_shared(name): p.grad for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    return {name: gradient.float().cpu().numpy() for name, gradient in found.items()}


def _shared(name: str) -> str:
    return name[name.index("layers.") :]


def with_lora(model: nn.Module) -> nn.Module:
    """Add LoRA to the language model; both factors are drawn, alike in every environment."""
    from peft import LoraConfig, get_peft_model

    modules = r".*layers\..*\.(" + "|".join(TARGETS) + ")"
    tuned: nn.Module = get_peft_model(model, LoraConfig(r=16, lora_alpha=64, lora_dropout=0.0, target_modules=modules))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            rng = np.random.default_rng(zlib.crc32(_shared(name).encode()))
            drawn = rng.uniform(-0.02, 0.02, tuple(parameter.shape)).astype(np.float32)
            parameter.data.copy_(torch.from_numpy(drawn))
    return tuned.train()


def ours(options: argparse.Namespace, rows: Rows, checkpointing: Checkpointing = False) -> tuple[nn.Module, Step, int]:
    """The step of `mllm_embed_training`: rows of like length together, and one look at every picture."""
    from mllm_embed.families import get_family
    from mllm_embed.modeling.encode import encode
    from mllm_embed.modeling.loading import load_base
    from mllm_embed_training.frozen_tower import looked_at, moved
    from mllm_embed_training.fused_lora import fuse_lora
    from mllm_embed_training.grad_cache import grad_cache_step
    from mllm_embed_training.losses import info_nce
    from mllm_embed_training.recompute import use_checkpointing

    base = load_base(options.folder, precision=options.precision, device=options.device)
    use_checkpointing(base, checkpointing)
    model = with_lora(base)
    fuse_lora(model)
    family, device = get_family("qwen2_vl"), torch.device(options.device)
    orders = {side: sorted(range(len(ids)), key=lambda row: len(ids[row])) for side, ids in rows.ids.items()}
    chunks = [
        [_in_precision(chunk, options.precision) for chunk in _chunks(rows, side, orders[side], options.chunk)]
        for side in SIDES
    ]
    query_rows, candidate_rows = (torch.tensor(orders[side]).argsort().to(device) for side in SIDES)

    def loss(queries: Tensor, candidates: Tensor) -> Tensor:
        labels = torch.arange(len(queries), device=device)
        return info_nce(queries[query_rows], candidates[candidate_rows], labels, temperature=TEMPERATURE)

    def step() -> float:
        seen = [[looked_at(model, family, chunk, device) for chunk in side] for side in chunks]
        return float(grad_cache_step(lambda chunk: encode(model, moved(chunk, device)).float(), *seen, loss))

    return model, step, _tokens(chunks)


def _chunks(rows: Rows, side: str, order: Sequence[int], size: int) -> list[dict[str, Tensor]]:
    """Cut a side into padded chunks."""
    return [rows.chunk(side, order[at : at + size]) for at in range(0, len(order), size)]


def _tokens(chunks: list[list[dict[str, Tensor]]]) -> int:
    return sum(chunk["input_ids"].numel() for side in chunks for chunk in side)


def _in_precision(inputs: dict[str, Tensor], precision: str) -> dict[str, Tensor]:
    dtype = getattr(torch, precision)
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


def vlm2vec(options: argparse.Namespace, rows: Rows) -> tuple[nn.Module, Step, int]:
    """VLM2Vec's model, splitter, GradCache and loss, put together as its trainer's constructor does."""
    from safetensors.torch import load_file
    from transformers import AutoConfig

    from parity.checkouts import Checkouts

    public = Checkouts(options.vlm2vec, Path(), Path()).vlm2vec_module
    config = AutoConfig.from_pretrained(str(options.folder))
    for part in (config, config.vision_config):
        part._attn_implementation = "sdpa"  # noqa: SLF001  # its own choice, flash-attn, is not to be had everywhere
    config.use_cache = False
    encoder = public("src.model.vlm_backbone.qwen2_vl").Qwen2VLForConditionalGeneration(config)
    encoder.load_state_dict(load_file(options.folder / "model.safetensors"))
    encoder = with_lora(encoder.to(options.device, getattr(torch, options.precision)))
    model = public("src.model.model").MMEBModel(encoder, pooling="last", normalize=True, temperature=TEMPERATURE)
    collator = public("src.data.collator.train_collator")
    cache = public("src.grad_cache.grad_cache").GradCache(
        models=[model, model],
        chunk_sizes=[options.chunk, options.chunk],
        loss_fn=public("src.loss").SimpleContrastiveLoss(temperature=TEMPERATURE),
        split_input_fn=collator.split_and_process_vlm_inputs,
        get_rep_fn=collator.get_dense_rep,
    )
    queries, targets = (_collated(rows, side, options.device) for side in SIDES)
    tokens = queries["input_ids"].numel() + targets["input_ids"].numel()
    return model, lambda: float(cache({"qry": queries}, {"tgt": targets})), tokens


def _collated(rows: Rows, side: str, device: str) -> dict[str, Any]:
    """Return a side as VLM2Vec's collator hands it over: the whole batch padded on the left, pictures row by row."""
    ids, mask = rows.padded(side, range(len(rows.ids[side])), "left")
    pictured = [bool(grid.sum()) for grid in rows.grids[side]]
    nothing = [None] * len(pictured)
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "pixel_values": [p.numpy() if has else None for p, has in zip(rows.patches[side], pictured, strict=True)],
        "image_grid_thw": [g[None] if has else None for g, has in zip(rows.grids[side], pictured, strict=True)],
        "pixel_values_videos": nothing,
        "video_grid_thw": nothing,
    }


class Encoder(nn.Module):
    """Features -> features with a sentence embedding: transformers' own model and the last token."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = model
        self._precision = precision

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode one of the loss's chunks, whose positions are VLM2Vec's."""
        names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
        inputs = _in_precision({name: features[name] for name in names if name in features}, self._precision)
        rows, width = inputs["input_ids"].shape
        positions = torch.arange(width, device=inputs["input_ids"].device).expand(3, rows, width)
        states = self.model(**inputs, position_ids=positions, use_cache=False).last_hidden_state
        last = inputs["attention_mask"].sum(dim=1) - 1
        return {**features, "sentence_embedding": states[torch.arange(rows), last].float()}


def sentence_transformers(options: argparse.Namespace, rows: Rows) -> tuple[nn.Module, Step, int]:
    """The cached loss of sentence-transformers."""
    from parity.checkouts import repair_torchvision

    repair_torchvision()
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
    from transformers import AutoModel

    dtype = getattr(torch, options.precision)
    model = with_lora(AutoModel.from_pretrained(options.folder, dtype=dtype, attn_implementation="sdpa"))
    wrapped = SentenceTransformer(modules=[Encoder(model, options.precision)], device=options.device)
    loss = CachedMultipleNegativesRankingLoss(wrapped, scale=1 / TEMPERATURE, mini_batch_size=options.chunk)
    features = []
    for side in SIDES:
        count = range(len(rows.ids[side]))
        whole = {name: t.to(options.device) for name, t in rows.chunk(side, count).items() if name != "position_ids"}
        whole["num_images_per_sample"] = (rows.grids[side].sum(dim=1) > 0).long()
        features.append(whole)

    def step() -> float:
        value = loss(features, None)
        value.backward()
        return float(value.detach())

    in_order = range(len(rows.ids["queries"]))
    return model, step, _tokens([_chunks(rows, side, in_order, options.chunk) for side in SIDES])  # cuts off padding


TRAINERS: dict[str, Callable[[argparse.Namespace, Rows], tuple[nn.Module, Step, int]]] = {
    "ours": ours,
    "ours-selective": partial(ours, checkpointing="selective"),
    "vlm2vec": vlm2vec,
    "sentence-transformers": sentence_transformers,
}

if __name__ == "__main__":
    main()
