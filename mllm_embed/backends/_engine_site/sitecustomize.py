"""Runs at the start of every engine process, whose PYTHONPATH names this folder: see `modeling/torch_compat.py`.

The workaround needs torch, which most processes that inherit the path never import; so it waits for the first import
of a package that would meet the broken extensions.

It also moves the processes that vLLM spawns into a process group of their own: Ctrl-C in a terminal then reaches our
process alone, which stops them in order.

And it keeps them from running the caller's script again, as Python's spawn does: a script without
`if __name__ == "__main__"` would start an engine within the engine, and fail.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_VLLM_NAMES = ("EngineCore", "VllmWorker")
"""How the names of vLLM's processes begin; others inherit the path too, and may need their script's functions."""


class _BeforeVision:
    """Applies the workaround before the first of the packages that need it, then steps aside."""

    NAMES = frozenset({"vllm", "transformers", "torchvision"})

    def find_spec(self, name: str, *_: Sequence[str] | ModuleType | None) -> ModuleSpec | None:
        if name in self.NAMES:
            sys.meta_path.remove(self)
            from mllm_embed.modeling import torch_compat

            torch_compat.apply()
            logging.getLogger("vllm.triton_utils").setLevel(logging.ERROR)  # it warns before logging is set up
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.triton_utils")
        return None


def _forget_the_script() -> None:
    """Let a spawned process of vLLM, which uses nothing of the script that it was started from, not run it."""
    from multiprocessing import spawn  # which other processes on the path may never need

    prepare = spawn.prepare

    def prepare_without(data: Mapping[str, Any]) -> None:
        if str(data.get("name", "")).startswith(_VLLM_NAMES):
            data = {key: value for key, value in data.items() if not key.startswith("init_main_from_")}
        prepare(data)

    spawn.prepare = prepare_without


def _run_shadowed() -> None:
    """Run the machine's own sitecustomize, which this one hides."""
    here = Path(__file__).parent.resolve()
    spec = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if Path(entry).resolve() != here])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if "--multiprocessing-fork" in sys.orig_argv:
    os.setpgrp()
    _forget_the_script()
sys.meta_path.insert(0, _BeforeVision())
_run_shadowed()
