"""The mined data set on disk: a folder that is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllm_embed.errors import InvalidInput
from mllm_embed.types import Content, Text, Video
from mllm_embed_training.data_files.schemas import ReadPicture
from mllm_embed_training.errors import DataFileError
from mllm_embed_training.mining.items import Item
from mllm_embed_training.mining.miner import Mined

DATASET, REPORT_JSON, REPORT_MD, HISTOGRAM = "mined.jsonl", "report.json", "report.md", "scores.png"
PICTURES = "pictures"
"""Subfolder, where the data set has pictures or videos inside its rows and not as files."""
_ELSEWHERE = ("http://", "https://", "data:")


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be replaced and holds nothing but what mining writes.

    Raises:
        InvalidInput: it is in the way.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise InvalidInput(f"{folder} exists: choose another output, or add --overwrite")
    ours = {DATASET, REPORT_JSON, REPORT_MD, HISTOGRAM, PICTURES}
    if not folder.is_dir() or (others := sorted({path.name for path in folder.iterdir()} - ours)):
        found = f"holds {others[0]}" if folder.is_dir() else "is a file"
        raise InvalidInput(f"{folder} is replaced only if it is a folder with nothing but mined data, but it {found}")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes the place of `folder` at the end if nothing goes wrong.

    Raises:
        DataFileError: the disk is full, or not to be written to.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            folder.rename(old)
            unfinished.rename(folder)
            shutil.rmtree(old)
        else:
            unfinished.rename(folder)
    except OSError as error:
        raise DataFileError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_dataset(mined: Iterable[Mined], unfinished: Path, folder: Path) -> None:
    """Write the rows in the schema that training reads, one JSON object per line.

    Args:
        mined: the rows.
        unfinished: the folder to write to.
        folder: where it will be: relative paths of pictures are written as seen from there.
    """
    with (unfinished / DATASET).open("w", encoding="utf-8") as file:
        for one in mined:
            file.write(json.dumps(_record(one, unfinished, folder), ensure_ascii=False) + "\n")


def _record(one: Mined, unfinished: Path, folder: Path) -> dict[str, Any]:
    def write(item: Item) -> Any:
        return as_json(item.content(seen_from(folder, item.file.images)), unfinished)

    pair = one.pair
    positives = [write(item) for item in pair.positives]
    right = {"positive": positives[0]} if len(positives) == 1 else {"positives": positives}
    scores = [*one.own_scores, *one.choice.scores.tolist()]
    return {
        "query": write(pair.query),
        **right,
        "negatives": [write(item) for item in (*pair.negatives, *one.negatives)],
        **pair.extra,
        "positive_score": round(one.positive_score, 6),
        "negative_scores": [round(score, 6) for score in scores],
    }


def seen_from(folder: Path, images: Path) -> ReadPicture:
    """Return a reader that leaves pictures where they are and rewrites relative paths, from `images` to `folder`."""

    def name(value: Any) -> bytes | str:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) or value.startswith(_ELSEWHERE) or Path(value).is_absolute():
            return value  # type: ignore[no-any-return]  # a string or bytes: the row was read once already
        return os.path.relpath(images.resolve() / value, folder.resolve())

    return name


def as_json(content: Sequence[Content], folder: Path) -> Any:
    """Write content as a side of a row; pictures and videos that are bytes become files of `folder`, equal ones one."""
    parts: list[Any] = []
    for part in content:
        if isinstance(part, Text):
            parts.append(part.text)
        else:
            source = _save(part.source, folder) if isinstance(part.source, bytes) else part.source
            parts.append({"video": source, **_sampling(part)} if isinstance(part, Video) else {"image": source})
    match parts:
        case [one]:
            return one
        case [{"image": _} | {"video": _} as shown, str(text)]:
            return {**shown, "text": text}
    return parts


def _sampling(video: Video) -> dict[str, Any]:
    """What a row says of a video beyond its source: that which is not the default."""
    given = {"frames": video.frames, "fps": video.fps}
    return {key: value for key, value in given.items() if value != getattr(Video(video.source), key)}


def _save(data: bytes, folder: Path) -> str:
    name = f"{PICTURES}/{hashlib.sha256(data).hexdigest()[:32]}"
    if not (folder / name).exists():
        (folder / PICTURES).mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return name
