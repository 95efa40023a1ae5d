"""Vectors by item, in memory and on disk, so that equal items are embedded once and a killed run resumes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed import __version__


def default_cache() -> Path:
    """Return the user's cache folder for evaluation vectors (`XDG_CACHE_HOME` is honoured)."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "mllm-embed" / "evaluation"


class VectorStore:
    """Vectors of one model by item key.

    Args:
        cache: folder of all models' vectors; None keeps them in memory only.
        description: everything that decides the vectors besides the item; another description, another subfolder.
    """

    def __init__(self, cache: Path | None, description: Mapping[str, Any]) -> None:
        identity = repr((sorted(description.items()), __version__))
        self._folder = None if cache is None else cache / hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._vectors: dict[str, NDArray[np.float32]] = {}
        if self._folder is not None and self._folder.is_dir():
            for file in sorted(self._folder.glob("*.npz")):
                self._read(file)

    def __contains__(self, key: str) -> bool:
        return key in self._vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def add(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep vectors, and write them to the cache as one file that is there whole or not at all.

        Args:
            keys: item keys.
            vectors: unit vectors, float32, shape [len(keys), D].
        """
        self._vectors.update(zip(keys, vectors, strict=True))
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{hashlib.sha256(''.join(keys).encode()).hexdigest()[:32]}.npz"
        partial = file.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as stream:
            np.savez(stream, keys=np.array(keys), vectors=vectors)
        partial.replace(file)

    def matrix(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of known keys, float32, shape [len(keys), D]."""
        return np.stack([self._vectors[key] for key in keys])

    def _read(self, file: Path) -> None:
        """Read one cache file; a damaged one is as good as none, since its items are embedded again."""
        try:
            with file.open("rb") as stream, np.load(stream) as stored:
                self._vectors.update(zip(stored["keys"].tolist(), stored["vectors"], strict=True))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            file.unlink(missing_ok=True)
