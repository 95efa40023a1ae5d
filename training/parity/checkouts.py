"""Import the public code from checkouts, on a machine without a GPU and without the packages that it never calls.

Nothing of that code is kept here: it is read from the folders that the command line names.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Checkouts:
    """Folders of the public repositories.

    Attributes:
        vlm2vec: of TIGER-AI-Lab/VLM2Vec.
        unime: of deepglint/UniME.
        grad_cache: of luyug/GradCache.
    """

    vlm2vec: Path
    unime: Path
    grad_cache: Path

    def vlm2vec_module(self, name: str) -> Any:
        """Import a module of VLM2Vec, such as `src.loss`."""
        repair_torchvision()
        vars(importlib.import_module("torchvision.io")).setdefault("write_video", None)  # imported, never called
        _stand_in("pytrec_eval")  # imported, never called
        # Wants flash-attn at import, for a video model that is not used here.
        _stand_in("src.model.baseline_backbone.internvideo2.modeling_internvideo2", InternVideo2_Stage2=object)
        return _import_from(self.vlm2vec, name)

    def unime_loss(self) -> Any:
        """Import UniME's only training file."""
        return _import_file(self.unime / "loss.py")

    def grad_cache_class(self) -> Any:
        """Return luyug's `GradCache`."""
        return _import_from(self.grad_cache / "src", "grad_cache").GradCache

    def commits(self) -> dict[str, str]:
        """Return the commit of each checkout."""
        folders = {"VLM2Vec": self.vlm2vec, "UniME": self.unime, "GradCache": self.grad_cache}
        return {name: commit_of(folder) for name, folder in folders.items()}


def repair_torchvision() -> None:
    """Let a CUDA build of torchvision be imported beside a CPU build of torch, as our package does for itself."""
    _import_file(ROOT / "mllm_embed" / "modeling" / "torch_compat.py").apply()


def commit_of(folder: Path) -> str:
    """Return the commit that is checked out in a folder."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


@cache
def _import_file(path: Path) -> Any:
    """Import one file without the package that it lies in."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import_from(folder: Path, name: str) -> Any:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _stand_in(name: str, **attributes: object) -> None:
    if name not in sys.modules:
        module = ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules[name] = module
