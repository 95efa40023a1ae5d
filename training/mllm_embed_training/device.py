"""Where a run computes, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch


def pick_device(name: str) -> torch.device:
    """Return the device; `auto` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"  # which one, the rank has chosen
    return torch.device(name)


def computes_in_bf16(wanted: bool | Literal["auto"], device: torch.device) -> bool:
    """Return whether to compute in bfloat16; `auto` does where the device has instructions for it.

    A processor without them emulates bfloat16, many times as slowly as it computes in float32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    asks = torch.ops.mkldnn._is_mkldnn_bf16_supported  # noqa: SLF001  # as torch's own compiler asks
    return device.type != "cpu" or bool(asks())
