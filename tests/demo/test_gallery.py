from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from mllm_embed_demo import drawn
from mllm_embed_demo.examples import EXAMPLES
from mllm_embed_demo.gallery import GalleryError, cache_dir, example_gallery, folder_gallery
from mllm_embed_demo.installed import SHIPPED, Shipped, locate
from mllm_embed_demo.pictures import Picture

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


def test_the_example_gallery_is_made_without_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    pictures = example_gallery(folder)
    assert (
        len(pictures) == len({picture.key for picture in pictures}) == len({picture.path.name for picture in pictures})
    )
    assert len(pictures) > 90
    for picture in pictures:
        assert picture.title
        assert picture.credit
        assert picture.payload().data


def test_every_shipped_picture_is_where_we_think(folder: Path) -> None:
    assert [shipped for shipped in SHIPPED if locate(shipped) is None] == []
    assert locate(Shipped("skimage", "data/none.png", "", "")) is None
    assert locate(Shipped("no_such_package", "data/none.png", "", "")) is None


def test_pictures_are_drawn_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = example_gallery(folder)

    def refuse(*_: object) -> None:
        raise AssertionError("a picture was drawn again")

    for pen in ("_symbol", "draw_chart", "draw_page"):
        monkeypatch.setattr(drawn, pen, refuse)
    assert example_gallery(folder) == first
    assert not list(folder.rglob("*.part"))


def test_drawing_is_deterministic(folder: Path, tmp_path: Path) -> None:
    again = {picture.path.name: picture.key for picture in example_gallery(tmp_path)}
    assert again == {picture.path.name: picture.key for picture in example_gallery(folder)}


def test_the_examples_pictures_exist(folder: Path) -> None:
    names = {picture.path.name for picture in example_gallery(folder)}
    assert {example.file for example in EXAMPLES if example.file is not None} <= names
    assert all(example.text or example.file for example in EXAMPLES)


def test_a_folder_is_searched_with_its_subfolders(tmp_path: Path, draw: Callable[..., PIL.Image.Image]) -> None:
    (tmp_path / "holidays").mkdir()
    draw(1).save(tmp_path / "holidays" / "at_the_lake.JPG")
    draw(2).save(tmp_path / "b.webp")
    draw(2).save(tmp_path / "copy.webp")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    pictures, skipped = folder_gallery(tmp_path)
    assert [(picture.title, picture.credit) for picture in pictures] == [
        ("b", "b.webp"),
        ("at the lake", "holidays/at_the_lake.JPG"),
    ]
    assert skipped == ["copy.webp: the same picture as b.webp"]


def test_an_unreadable_file_is_named(
    tmp_path: Path, draw: Callable[..., PIL.Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(1).save(tmp_path / "a.png")
    draw(2).save(tmp_path / "b.png")
    real = Picture.of

    def refuse_a(path: Path, **about: str) -> Picture:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        return real(path, **about)

    monkeypatch.setattr(Picture, "of", refuse_a)
    pictures, skipped = folder_gallery(tmp_path)
    assert [picture.title for picture in pictures] == ["b"]
    assert skipped == ["a.png: Permission denied"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="holds no picture"):
        folder_gallery(tmp_path)
    with pytest.raises(GalleryError, match="there is no folder"):
        folder_gallery(tmp_path / "none")


def test_the_cache_follows_the_desktop_standard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "mllm-embed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_dir() == Path("/home/someone/.cache/mllm-embed")
