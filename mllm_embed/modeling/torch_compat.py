"""Make the CUDA builds of torchvision and torchaudio harmless beside a CPU build of torch.

PyPI ships both libraries built for CUDA only. Beside torch+cpu their C++ extensions cannot load: `import torchvision`
then fails with "operator torchvision::nms does not exist", and `import torchaudio` with an OSError. transformers
imports both where they are installed (it needs torchvision's pure-torch image transforms; audio it never needs here).

`apply()` defines the two operator schemas that torchvision asks for at import, and hides a torchaudio that cannot
load. It does nothing where the extensions load. It must run before the first import of torchvision, in every process:
`mllm_embed/backends/_engine_site/sitecustomize.py` calls it in vLLM's engine processes.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # definitions live as long as these objects


@cache
def apply() -> None:
    """Apply both workarounds once, where this machine needs them."""
    if torch.version.cuda is not None or "torchvision" in sys.modules:
        return
    if _extension_is_broken("torchvision", "_C.so"):
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _libraries.append(library)
    for name in ("torchaudio", "torchcodec"):
        if name not in sys.modules and _is_cuda_build(name):
            sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail cleanly


def _extension_is_broken(package: str, library: str) -> bool:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    path = Path(spec.origin).parent / library
    if not path.exists():
        return False
    try:
        torch.ops.load_library(str(path))
    except OSError:
        return True
    return False


def _is_cuda_build(package: str) -> bool:
    """True if the installed package links against CUDA, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    libraries = Path(spec.origin).parent.rglob("*.so")
    return any(b"libc10_cuda.so" in path.read_bytes() or b"libcudart" in path.read_bytes() for path in libraries)
