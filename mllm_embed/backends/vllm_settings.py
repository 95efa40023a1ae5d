"""The settings of vLLM's engine that can be found without vLLM: what adapters need, memory, environment."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm_embed.adapters import AdapterRoom, adapts_tower, lora_rank, uses_dora
from mllm_embed.errors import IncompatibleCheckpoint

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir

_ENGINE_SITE = Path(__file__).parent / "_engine_site"
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM can be prepared for."""
_CPU_BLOCK = 128
"""Tokens per block of attention states on a CPU."""


def adapter_options(model_dir: ModelDir, room: AdapterRoom | None, *, on_cpu: bool) -> dict[str, Any]:
    """The settings that LoRA adapters need: the model's own, and those that may come while the engine runs.

    On a CPU, vLLM 0.32 runs what asks for no adapter through its last slot, if anything else in the batch asks for one:
    an index of -1, read as Python does. So there the last slot is one more, which stays empty and changes nothing.
    """
    own = [model_dir] if model_dir.adapter is not None else []
    if room is None and not own:
        return {}
    needed = AdapterRoom.for_all(own, slots=len(own) + (room.slots if room else 0), rank=room.rank if room else 1)
    needed = replace(needed, tower=needed.tower or (room is not None and room.tower))
    for each in own:
        check_room(each, needed)
    rank = next((rank for rank in _LORA_RANKS if rank >= needed.rank), None)
    if rank is None:
        raise IncompatibleCheckpoint(
            f"the rank of a LoRA adapter may be at most {_LORA_RANKS[-1]} in vLLM, but is {needed.rank}"
        )
    if needed.tower and not model_dir.family.vllm.tower_lora:
        raise IncompatibleCheckpoint(
            f"an adapter adapts the vision tower, which vLLM cannot do for the family {model_dir.family.name}: "
            "merge it (mllm-embed export)"
        )
    return {
        "enable_lora": True,
        "max_loras": needed.slots + on_cpu,
        "max_lora_rank": rank,
        "enable_tower_connector_lora": needed.tower,
    }


def check_room(model_dir: ModelDir, room: AdapterRoom) -> None:
    """Refuse an adapter that vLLM would drop in part, or for which it was not prepared."""
    adapter = model_dir.adapter
    if adapter is None:
        return
    if uses_dora(adapter):
        raise IncompatibleCheckpoint(
            f"{adapter} is a DoRA adapter, which vLLM cannot run: merge it (mllm-embed export)"
        )
    if (rank := lora_rank(adapter)) > room.rank:
        raise IncompatibleCheckpoint(f"{adapter}: the rank of an adapter may be at most {room.rank}, but is {rank}")
    if adapts_tower(adapter, model_dir.family) and not room.tower:
        raise IncompatibleCheckpoint(
            f"{adapter} adapts the vision tower, for which vLLM must be prepared when it starts: name it then"
        )


def has_gpu() -> bool:
    """Whether the engine will run on CUDA."""
    import torch

    return torch.version.cuda is not None and torch.cuda.is_available()


def kv_bytes(model_dir: ModelDir, precision: str) -> int:
    """Bytes of attention states for at least one longest prompt, and no less than half a GiB."""
    text = model_dir.family.text_config(json.loads((model_dir.weights / "config.json").read_text(encoding="utf-8")))
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    heads = text.get("num_key_value_heads") or text["num_attention_heads"]
    per_token = 2 * text["num_hidden_layers"] * heads * head_dim * (4 if precision == "float32" else 2)
    return int(max(2**29, 1.25 * per_token * (model_dir.recipe.max_tokens + _CPU_BLOCK)))


@contextlib.contextmanager
def engine_environment() -> Iterator[None]:
    """Set the environment that vLLM reads at import and that its processes inherit, and restore it afterwards."""
    path = os.pathsep.join(filter(None, (str(_ENGINE_SITE), os.environ.get("PYTHONPATH"))))
    wanted = {"PYTHONPATH": path, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    # OpenMP threads that spin while they wait make the engine many times slower wherever others want the cores.
    for name, default in (
        ("VLLM_LOGGING_LEVEL", "ERROR"),
        ("TORCH_CPP_LOG_LEVEL", "ERROR"),
        ("OMP_WAIT_POLICY", "PASSIVE"),
    ):
        wanted[name] = os.environ.get(name, default)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
