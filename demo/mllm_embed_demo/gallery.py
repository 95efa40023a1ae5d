"""The pictures to search: the built-in examples, or a folder of the user's."""

from __future__ import annotations

import os
from pathlib import Path

from mllm_embed.errors import MllmEmbedError
from mllm_embed_demo import drawn
from mllm_embed_demo.installed import SHIPPED, locate
from mllm_embed_demo.pictures import SUFFIXES, Picture


class GalleryError(MllmEmbedError):
    """The gallery cannot be had: no such folder, or no picture in it."""


def cache_dir() -> Path:
    """Return the folder for things that can be made again: `$XDG_CACHE_HOME/mllm-embed`, else `~/.cache/mllm-embed`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "mllm-embed"


def example_gallery(folder: Path) -> list[Picture]:
    """Return the example pictures: those that installed packages carry, and those that our code draws.

    Args:
        folder: where drawn pictures are kept; they are drawn at the first call only.
    """
    found = [(locate(shipped), shipped) for shipped in SHIPPED]
    shipped = [Picture.of(path, title=item.title, credit=item.credit) for path, item in found if path is not None]
    return shipped + drawn.pictures(folder / f"drawn-{drawn.VERSION}")


def folder_gallery(folder: Path) -> tuple[list[Picture], list[str]]:
    """Find the pictures below a folder, by their suffix, in the order of their paths.

    Returns:
        the pictures without duplicates, and what was left out, as "name: reason".

    Raises:
        GalleryError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise GalleryError(f"there is no folder {folder}")
    pictures: dict[str, Picture] = {}
    skipped: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        try:
            picture = Picture.of(path, title=path.stem.replace("_", " "), credit=name)
        except OSError as error:
            skipped.append(f"{name}: {error.strerror}")
            continue
        if picture.digest in pictures:
            skipped.append(f"{name}: the same picture as {pictures[picture.digest].credit}")
        else:
            pictures[picture.digest] = picture
    if not pictures:
        raise GalleryError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    return list(pictures.values()), skipped
