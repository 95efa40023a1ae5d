from pathlib import Path

import numpy as np
import pytest

from mllm_embed.evaluation.vector_store import VectorStore, default_cache

pytestmark = pytest.mark.fast

MODEL = {"name": "m", "fingerprint": "f"}
VECTORS = np.eye(3, dtype=np.float32)


def test_vectors_survive_the_process(tmp_path: Path) -> None:
    VectorStore(tmp_path, MODEL).add(["a", "b", "c"], VECTORS)
    store = VectorStore(tmp_path, MODEL)
    assert "b" in store
    assert "d" not in store
    np.testing.assert_array_equal(store.matrix(["c", "a"]), VECTORS[[2, 0]])


@pytest.mark.parametrize("other", [{**MODEL, "fingerprint": "g"}, {**MODEL, "precision": "bfloat16"}])
def test_another_model_has_its_own_vectors(tmp_path: Path, other: dict[str, str]) -> None:
    VectorStore(tmp_path, MODEL).add(["a", "b", "c"], VECTORS)
    assert len(VectorStore(tmp_path, other)) == 0


def test_a_damaged_file_is_embedded_again(tmp_path: Path) -> None:
    VectorStore(tmp_path, MODEL).add(["a", "b", "c"], VECTORS)
    (file,) = tmp_path.glob("*/*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert len(VectorStore(tmp_path, MODEL)) == 0
    assert not file.exists()


def test_no_partial_file_stays(tmp_path: Path) -> None:
    VectorStore(tmp_path, MODEL).add(["a", "b", "c"], VECTORS)
    assert [file.suffix for file in tmp_path.glob("*/*")] == [".npz"]


def test_without_a_cache_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    VectorStore(None, MODEL).add(["a"], VECTORS[:1])
    assert not list(tmp_path.iterdir())
    assert default_cache() == tmp_path / "mllm-embed" / "evaluation"
