from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.errors import BackendUnavailable
from mllm_embed_demo import index as module
from mllm_embed_demo.client import ApiRefused, EmbeddingsClient, ModelCard, WireItem
from mllm_embed_demo.index import GALLERY_INSTRUCTION, Index, build_index
from mllm_embed_demo.pictures import Picture

pytestmark = pytest.mark.fast

Connect = Callable[..., "Recorder"]
CARD = ModelCard(name="fake", fingerprint="one")


class Recorder(EmbeddingsClient):
    """The real client, with its requests counted, and pictures it is told to refuse."""

    def __init__(self, api: str, refused: Sequence[Picture] = (), fail_after: int | None = None) -> None:
        super().__init__(api)
        self.batches: list[int] = []
        self.instructions: set[str | None] = set()
        self._refused = {picture.payload().uri for picture in refused}
        self._fail_after = fail_after

    def embed(self, model: str, items: Sequence[WireItem], **options: Any) -> NDArray[np.float32]:
        self.batches.append(len(items))
        self.instructions.add(options.get("instruction"))
        if self._fail_after is not None and len(self.batches) > self._fail_after:
            raise BackendUnavailable("gone")
        if any(isinstance(item, dict) and item["image"] in self._refused for item in items):
            raise ApiRefused("not this one", 400)
        return super().embed(model, items, **options)


@pytest.fixture
def connect(api: str) -> Iterator[Connect]:
    """Make recorders that are closed in the end."""
    with ExitStack() as stack:

        def connect(**options: Any) -> Recorder:
            recorder = Recorder(api, **options)
            stack.callback(recorder.close)
            return recorder

        yield connect


def build(client: EmbeddingsClient, pictures: Sequence[Picture], folder: Path, card: ModelCard = CARD) -> Index:
    return build_index(client, card, pictures, folder, lambda _done, _total: None)


def test_pictures_are_embedded_in_batches_as_targets(
    connect: Connect, pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ITEMS", 2)
    client = connect()
    told: list[tuple[int, int]] = []
    index = build_index(client, CARD, pictures, tmp_path / "vectors", lambda done, total: told.append((done, total)))
    assert client.batches == [2, 2, 1]
    assert client.instructions == {GALLERY_INSTRUCTION}
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert index.pictures == tuple(pictures)
    for picture, vector in zip(index.pictures, index.vectors, strict=True):
        [alone] = client.embed("fake", [{"image": picture.payload().uri}], instruction=GALLERY_INSTRUCTION)
        assert np.allclose(vector, alone, atol=1e-5)


def test_batches_are_limited_in_bytes(
    connect: Connect, pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    client = connect()
    assert len(build(client, pictures, tmp_path / "v").pictures) == 5
    assert client.batches == [1] * 5


def test_a_second_start_asks_only_for_what_is_new(connect: Connect, pictures: list[Picture], tmp_path: Path) -> None:
    first = build(connect(), pictures[:3], tmp_path / "v")
    again, more = connect(), connect()
    index = build(again, pictures[:3], tmp_path / "v")
    assert again.batches == []
    assert np.array_equal(index.vectors, first.vectors)
    assert len(build(more, pictures, tmp_path / "v").pictures) == 5
    assert more.batches == [2]


@pytest.mark.parametrize(
    "card", [ModelCard(name="fake", fingerprint="two"), ModelCard(name="fake", fingerprint="one", backend="other")]
)
def test_another_model_has_other_vectors(
    connect: Connect, pictures: list[Picture], tmp_path: Path, card: ModelCard
) -> None:
    build(connect(), pictures, tmp_path / "v")
    client = connect()
    build(client, pictures, tmp_path / "v", card)
    assert client.batches == [5]


def test_a_model_without_fingerprint_is_never_cached(connect: Connect, pictures: list[Picture], tmp_path: Path) -> None:
    for _ in range(2):
        client = connect()
        build(client, pictures, tmp_path / "v", ModelCard(name="fake"))
        assert client.batches == [5]
    assert not (tmp_path / "v").exists()


def test_a_damaged_cache_is_made_anew(
    connect: Connect, pictures: list[Picture], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(connect(), pictures, tmp_path / "v")
    [file] = (tmp_path / "v").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    client = connect()
    assert len(build(client, pictures, tmp_path / "v").pictures) == 5
    assert client.batches == [5]
    assert "is damaged" in caplog.text


def test_bad_pictures_are_left_out_by_name(connect: Connect, pictures: list[Picture], tmp_path: Path) -> None:
    pictures[1].path.write_bytes(b"no picture")
    pictures[2].path.unlink()
    index = build(connect(refused=[pictures[3]]), pictures, tmp_path / "v")
    assert [picture.title for picture in index.pictures] == ["Picture 0", "Picture 4"]
    assert [line.partition(":")[0] for line in index.skipped] == ["picture-1.png", "picture-2.png", "picture-3.png"]
    assert index.skipped[2] == "picture-3.png: not this one"


def test_a_wrong_key_is_no_fault_of_the_pictures(pictures: list[Picture], tmp_path: Path) -> None:
    class Locked(EmbeddingsClient):
        def embed(self, *_: Any, **__: Any) -> NDArray[np.float32]:
            raise ApiRefused("wrong key", 401)

    with Locked("http://api") as client, pytest.raises(ApiRefused, match="wrong key"):
        build(client, pictures, tmp_path / "v")


def test_what_was_embedded_before_a_failure_is_kept(
    connect: Connect, pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ITEMS", 2)
    with pytest.raises(BackendUnavailable):
        build(connect(fail_after=1), pictures, tmp_path / "v")
    client = connect()
    build(client, pictures, tmp_path / "v")
    assert client.batches == [2, 1]


def test_cutting_here_equals_cutting_there(connect: Connect, pictures: list[Picture], tmp_path: Path) -> None:
    client = connect()
    index = build(client, pictures, tmp_path / "v")
    items = [{"image": picture.payload().uri} for picture in pictures]
    narrow = client.embed("fake", items, instruction=GALLERY_INSTRUCTION, dimensions=16)
    [query] = client.embed("fake", ["a"], dimensions=16)
    assert np.allclose(index.scores(query), narrow @ query, atol=1e-5)
