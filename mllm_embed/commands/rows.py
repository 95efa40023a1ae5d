"""What the user names on the command line -> rows to embed, in order: files, folders, lines of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from mllm_embed.documents import pages
from mllm_embed.errors import InputError, InvalidInput
from mllm_embed.regions import from_json
from mllm_embed.types import Content, EmbedInput, Image, Page, Text, Video

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff", ".heic"})
"""What is taken for a picture in a folder; those that cannot be decoded are reported, not passed over."""
VIDEOS = frozenset({".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v"})
"""What is taken for a video in a folder; it is embedded as eight of its frames."""
STDIN = "-"
_RECORD_KEYS = frozenset({"id", "text", "image", "region", "instruction"})


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to embed.

    Attributes:
        id: what the row is called in the output: a path, `file:line`, or the id that a .jsonl record gives itself.
        key: hash of id and content, so that a finished row is recognised, and a changed one is not.
        text: its text, if any.
        image: path or URL of its picture, video or document, if any; `item` says which region of it is meant.
        item: what is embedded; a picture comes before the text that it goes with.
    """

    id: str
    key: str
    text: str | None
    image: str | None
    item: EmbedInput


def collect(names: Sequence[str], stdin: TextIO) -> list[Row]:
    """Return the rows of files, folders and standard input, in order.

    Args:
        names: pictures; videos; .pdf files (one row per page); .txt files (one text per line); .jsonl files (one record
            per line with `text`, `image`, or both, and optionally `id`, `instruction` and the `region` of the image);
            folders, searched for these; `-` for lines on `stdin`.
        stdin: read where a name is `-`.

    Raises:
        InvalidInput: a name that is none of these, a malformed record, two different rows of one id, or no row at all.
    """
    rows: dict[str, Row] = {}
    for name in names:
        for row in _lines("stdin", stdin) if name == STDIN else _path(Path(name)):
            if rows.setdefault(row.id, row).key != row.key:
                raise InvalidInput(f"ids must differ, but two different rows are called {row.id!r}")
    if not rows:
        raise InvalidInput(f"there is nothing to embed in {', '.join(names)}")
    return list(rows.values())


def _path(path: Path) -> Iterator[Row]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.suffix.lower() in PICTURES | VIDEOS | {".txt", ".jsonl", ".pdf"}:
                yield from _path(file)
    elif not path.exists():
        raise InvalidInput(f"there is no file or folder {path}")
    elif path.suffix.lower() == ".txt":
        with path.open(encoding="utf-8") as stream:
            yield from _lines(str(path), stream)
    elif path.suffix.lower() == ".jsonl":
        with path.open(encoding="utf-8") as stream:
            yield from _records(path, stream)
    elif path.suffix.lower() == ".pdf":
        yield from _pages(path)
    elif path.suffix.lower() in VIDEOS:
        yield replace(_row(str(path), None, str(path)), item=EmbedInput((Video(path),)))
    else:
        yield _row(str(path), None, str(path))


def _pages(path: Path) -> Iterator[Row]:
    """Yield a row per page; a document that cannot be opened is one row, which then says why."""
    try:
        found = pages(path)
    except InputError:
        found = [Page(path)]
    for page in found:
        row = _row(f"{path}#page={page.number}", None, str(path))
        yield replace(row, item=EmbedInput((page,)))


def _lines(name: str, stream: TextIO) -> Iterator[Row]:
    try:
        for number, line in enumerate(stream, 1):
            if text := line.rstrip("\r\n"):
                yield _row(f"{name}:{number}", text, None)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} must be UTF-8 text, but is not: {error}") from None


def _records(path: Path, stream: TextIO) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{where} is not JSON: {error}") from None
        if not isinstance(record, dict) or not all(isinstance(record[key], str) for key in record if key != "region"):
            raise InvalidInput(f"{where} must be an object whose values are strings, except a region")
        if unknown := sorted(set(record) - _RECORD_KEYS):
            raise InvalidInput(f"{where} may hold {', '.join(sorted(_RECORD_KEYS))}, but holds {', '.join(unknown)}")
        if not {"text", "image"} & set(record):
            raise InvalidInput(f"{where} must hold text, image, or both")
        image = record.get("image")
        if image is not None and not image.lower().startswith(("http://", "https://", "data:")):
            image = str(path.parent / image)  # a record names pictures as seen from its own file
        row = _row(record.get("id", where), record.get("text"), image, record.get("instruction"))
        yield row if record.get("region") is None else _with_region(row, record["region"], path, where)


def _with_region(row: Row, value: Any, path: Path, where: str) -> Row:
    """Let a row's picture mean a region; a mask in a file stands beside the file of the record."""

    def mask(name: str) -> str:
        return name if name.startswith("data:") else str(path.parent / name)

    if row.image is None:
        raise InvalidInput(f"{where} has a region, but no image")
    try:
        region = from_json(value, mask)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.message}") from None
    content = tuple(replace(part, region=region) if isinstance(part, Image) else part for part in row.item.content)
    state = _state(region.mask) if isinstance(region.mask, str) else None
    key = hashlib.sha256(json.dumps([row.key, value, state]).encode()).hexdigest()
    return replace(row, key=key, item=replace(row.item, content=content))


def _row(row_id: str, text: str | None, image: str | None, instruction: str | None = None) -> Row:
    content: list[Content] = [] if image is None else [Image(image)]
    if text is not None:
        content.append(Text(text))
    key = hashlib.sha256(json.dumps([row_id, text, image, instruction, _state(image)]).encode()).hexdigest()
    return Row(row_id, key, text, image, EmbedInput(tuple(content), instruction))


def _state(image: str | None) -> Any:
    """Return what changes when a picture file does: size and time of change; None for what is no file."""
    if image is None or image.startswith("data:") or not Path(image).is_file():
        return None
    found = Path(image).stat()
    return [found.st_size, found.st_mtime_ns]
