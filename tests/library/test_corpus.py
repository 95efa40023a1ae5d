"""A corpus on a local Ray: the vectors of the plain embedder, and bad rows that cost nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed.corpus import CorpusJob, embed_dataset
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InvalidInput
from mllm_embed.types import Image
from tests.library.test_media import encoded, picture

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string(), "image": pa.binary()})
JOB = CorpusJob(model="mllm-embed-mini", backend="fake", dimensions=64)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Logical processors: two workers hold one each for good, and reading and writing must find some too.
    ray.init(num_cpus=4, include_dashboard=False, logging_level="error", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def embedded(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    source = folder / "rows"
    source.mkdir()
    for part in range(0, len(rows), 4):
        pq.write_table(pa.Table.from_pylist(rows[part : part + 4], schema=SCHEMA), source / f"{part}.parquet")
    dataset = ray.data.read_parquet(str(source), override_num_blocks=len(list(source.iterdir())))
    found = embed_dataset(dataset, JOB, batch_size=4, **options)
    found.write_parquet(str(folder / "vectors"))
    return sorted(pq.read_table(folder / "vectors").to_pylist(), key=lambda row: row["id"])


def test_two_workers_give_the_vectors_of_the_embedder(cluster: None, tmp_path: Path) -> None:
    image = encoded(picture())
    rows = [{"id": n, "text": f"text {n}" if n % 3 else None, "image": image if n % 2 else None} for n in range(1, 18)]
    rows = [row for row in rows if row["text"] or row["image"]]
    found = embedded(tmp_path, rows, workers=2)
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    items = [tuple(filter(None, (Image(image) if row["image"] else None, row["text"]))) for row in rows]
    with Embedder.load("mllm-embed-mini", backend="fake") as embedder:
        expected = embedder.embed(items, role="target", dimensions=64)
    np.testing.assert_allclose([row["embedding"] for row in found], expected, atol=1e-6)
    assert {row["error"] for row in found} == {None}


def test_a_bad_row_has_its_reason_and_the_others_their_vectors(cluster: None, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 0, "text": "fine", "image": None},
        {"id": 1, "text": "", "image": None},
        {"id": 2, "text": None, "image": b"no picture"},
        {"id": 3, "text": None, "image": None},
        {"id": 4, "text": "fine too", "image": None},
    ]
    found = embedded(tmp_path, rows)
    assert [row["embedding"] is None for row in found] == [False, True, True, True, False]
    assert [bool(row["error"]) for row in found] == [False, True, True, True, False]
    assert "empty" in found[1]["error"]
    assert "neither text nor image" in found[3]["error"]


def test_rows_without_a_known_column_are_refused(cluster: None) -> None:
    with pytest.raises(InvalidInput, match="no column 'text' or 'image', only words"):
        embed_dataset(ray.data.from_items([{"words": "x"}]), JOB)
