"""Gallery vectors: made over HTTP in batches, kept on disk, compared by cosine."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mllm_embed.errors import InputError
from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed_demo.client import ApiRefused, EmbeddingsClient, ModelCard, WireItem
from mllm_embed_demo.pictures import Picture

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

GALLERY_INSTRUCTION = get_task(DEFAULT).target
BATCH_ITEMS = 16
BATCH_BYTES = 8_000_000
Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


@dataclass(frozen=True)
class Index:
    """Pictures and their vectors, row by row.

    Attributes:
        card: the model that made the vectors.
        pictures: N pictures.
        vectors: float32 unit vectors, shape [N, D], full width.
        skipped: what could not be embedded, as "name: reason".
    """

    card: ModelCard
    pictures: tuple[Picture, ...]
    vectors: NDArray[np.float32]
    skipped: tuple[str, ...] = field(default=())

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine of `query` (unit vector, shape [d], d <= D) with every picture, shape [N].

        A narrower query is compared with vectors cut to its width, which are unit vectors again after a division:
        the same that the server returns when it is asked for that width.
        """
        cut = self.vectors[:, : len(query)]
        return np.asarray(cut @ query / np.linalg.norm(cut, axis=1), dtype=np.float32)


class VectorCache:
    """Vectors on disk: one file for each model fingerprint, rows found by the picture's digest.

    Args:
        folder: where the files lie; it is made when needed.
        card: the model; one without a fingerprint keeps nothing, since it may change unseen.
    """

    def __init__(self, folder: Path, card: ModelCard) -> None:
        key = hashlib.sha256(f"{card.fingerprint}\n{card.backend}\n{GALLERY_INSTRUCTION}".encode()).hexdigest()[:32]
        self.file = folder / f"{key}.npz" if card.fingerprint is not None else None

    def load(self) -> dict[str, NDArray[np.float32]]:
        """Return the vectors by digest; none when the file is absent or damaged."""
        if self.file is None or not self.file.exists():
            return {}
        try:
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return dict(zip(stored["digests"].tolist(), stored["vectors"], strict=True))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            log.warning("the vector cache %s is damaged and will be made anew", self.file)
            return {}

    def save(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Replace the file, in one step."""
        if self.file is None or not vectors:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_name(f"{self.file.stem}.{os.getpid()}.part.npz")
        np.savez(part, digests=np.array(list(vectors)), vectors=np.stack(list(vectors.values())))
        part.replace(self.file)


def build_index(
    client: EmbeddingsClient, card: ModelCard, pictures: Sequence[Picture], folder: Path, progress: Progress
) -> Index:
    """Embed the pictures that the cache does not know, and put the index together.

    Raises:
        BackendUnavailable: the API does not answer; what it had answered before is kept in the cache.
    """
    cache = VectorCache(folder, card)
    known = cache.load()
    missing = [picture for picture in pictures if picture.digest not in known]
    skipped: list[str] = []
    done = len(pictures) - len(missing)
    progress(done, len(pictures))
    try:
        for batch in _batches(missing, skipped):
            known.update(_embed_batch(client, card, batch, skipped))
            done += len(batch)
            progress(done, len(pictures))
    finally:
        if missing:
            cache.save(known)
    kept = tuple(picture for picture in pictures if picture.digest in known)
    vectors = np.stack([known[picture.digest] for picture in kept]) if kept else np.zeros((0, 1), dtype=np.float32)
    return Index(card, kept, vectors, tuple(skipped))


Batch = list[tuple[Picture, WireItem]]


def _batches(pictures: Sequence[Picture], skipped: list[str]) -> Iterator[Batch]:
    """Read pictures as they are needed, grouped by number and size; unreadable ones go to `skipped`."""
    batch: Batch = []
    size = 0
    for picture in pictures:
        try:
            uri = picture.payload().uri
        except (InputError, OSError) as error:
            skipped.append(f"{picture.path.name}: {error}")
            continue
        if batch and (len(batch) == BATCH_ITEMS or size + len(uri) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((picture, {"image": uri}))
        size += len(uri)
    if batch:
        yield batch


def _embed_batch(
    client: EmbeddingsClient, card: ModelCard, batch: Batch, skipped: list[str]
) -> dict[str, NDArray[np.float32]]:
    """Embed one batch; when the server refuses it, find out which picture it was."""
    try:
        vectors = client.embed(card.name, [item for _, item in batch], instruction=GALLERY_INSTRUCTION)
    except ApiRefused as refusal:
        if refusal.status in (401, 403, 404):  # no fault of a picture
            raise
        if len(batch) == 1:
            skipped.append(f"{batch[0][0].path.name}: {refusal}")
            return {}
        halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
        return {key: row for half in halves for key, row in _embed_batch(client, card, half, skipped).items()}
    return {picture.digest: vector for (picture, _), vector in zip(batch, vectors, strict=True)}
