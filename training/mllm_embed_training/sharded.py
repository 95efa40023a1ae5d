"""Frozen weights spread over the ranks: each keeps a part, and a layer's are gathered while it computes (FSDP).

What is trained, the adapter, stays whole on every rank: its gradients are summed once, after the last chunk, and
checkpoints are written by one rank, as without. So a step is what it is on one GPU, to the rounding of sums.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mllm_embed_training import ranks


def shard_frozen(model: nn.Module, language_model: nn.Module, device: torch.device) -> None:
    """Spread the frozen weights of a language model's layers over the ranks, and move all the rest to `device`.

    Embeddings and tower stay whole: some chunks of a rank have no pictures, and ranks must gather in step.

    Args:
        model: loaded on the CPU, with its adapter; the whole of it.
        language_model: the part of it whose layers are spread, or the list of these layers.
        device: of this rank.
    """
    mesh = init_device_mesh(device.type, (ranks.count(),))
    lists = [part for part in (language_model, *language_model.children()) if isinstance(part, nn.ModuleList)]
    for layer in (layer for one in lists for layer in one):
        whole = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    model.to(device)
