"""Rows of the user's files -> examples, in the field names that people already have.

pairs
    {"query": SIDE, "positive": SIDE, "negatives": [SIDE, ...], "task": ..., "id": ...}
    with `positives` and `grades` where there are several right answers; a SIDE is a text, or {"text": ...,
    "image": ...}, or {"text": ..., "video": ...}, or a list of these in order. The columns of sentence-transformers'
    data sets (anchor, positive, negative, negative_1, ...) and what `mllm-embed mine` writes are read the same way.
mmeb
    qry, qry_image_path, pos_text, pos_image_path, neg_text, neg_image_path as in MMEB-train; the picture's place in a
    text is where its placeholder stands.
llava
    visual-instruction data: `image` or `video`, and `conversations`, turns of `from` (human, gpt) and `value`. One
    question and its answer are drawn from a conversation: the question is the instruction of what is shown, the answer
    the positive, as FocalLens (arXiv:2504.08368) makes pairs.
webdataset
    a shard's sample: its .json if that has the fields of `pairs` (pictures are named by extension), else its .txt as
    the query and its picture or video as the positive.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mllm_embed.commands import rows
from mllm_embed.errors import InvalidInput
from mllm_embed.tasks import DEFAULT, Task, get_task
from mllm_embed.types import Content, Image, Text, Video
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.examples import Side

Row = Mapping[str, Any]
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
"""Extensions of a shard's pictures."""
VIDEOS = tuple(sorted(suffix.removeprefix(".") for suffix in rows.VIDEOS))
"""Extensions of a shard's videos."""
SIDE_KEYS = ("text", "image", "video", "frames", "fps")
"""What an object may say that is a side of a row; the last two are about its video."""
_IMAGE_SLOT = re.compile(r"<\|image_\d+\|>|<\|image_pad\|>|<image>|<\|video_pad\|>|<video>")
"""How rows mark the place of a picture or a video: Phi-3's numbered slot, Qwen's, LLaVA's."""
_PAIR_KEYS = frozenset({"query", "anchor", "positive", "positives", "negative", "negatives", "grades", "task", "id"})
_INFORMATION = re.compile(r"negative_\d+|positive_score|negative_scores|__key__")
"""Keys beside `_PAIR_KEYS` that rows may have: numbered negatives, and what mining or a judge notes."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a row says, before the task's instructions come in.

    Attributes:
        query: what is asked.
        positives: right answers, at least one.
        negatives: wrong ones.
        grades: how right each positive is, above 0; equal if empty.
        scores: a judge's or a miner's, of the first positive and the negatives; empty if the row has none.
        task: the row's own task: a built-in one's name, or its two instructions by role; None leaves it to the recipe.
    """

    query: Side
    positives: tuple[Side, ...]
    negatives: tuple[Side, ...] = ()
    grades: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    task: str | Mapping[str, str] | None = None

    def instructions(self, default: Task) -> Task:
        """Return the row's own instructions, or the default ones.

        Raises:
            CorruptRow: its task is neither a built-in one nor two instructions.
        """
        own = self.task
        if own is None:
            return default
        try:
            return get_task(own) if isinstance(own, str) else Task("row", own["query"], own["target"])
        except (InvalidInput, KeyError, TypeError):
            raise CorruptRow(f"its task must be a built-in one or give query and target, but is {own!r}") from None


ReadPicture = Callable[[Any], bytes | str]
"""What a row calls a picture or a video -> its bytes, or its URL."""


def pairs(row: Row, picture: ReadPicture, _rng: random.Random) -> Fields:
    """Read a row of queries, positives and negatives.

    Raises:
        CorruptRow: a field is missing, unknown or of the wrong type.
    """
    if unknown := sorted(key for key in row if key not in _PAIR_KEYS and not _INFORMATION.fullmatch(key)):
        raise CorruptRow(f"it has the unknown field {unknown[0]!r}; known are {', '.join(sorted(_PAIR_KEYS))}")
    query = _first(row, "query", "anchor")
    positives = row.get("positives") if row.get("positives") is not None else [_first(row, "positive")]
    negatives, grades = row.get("negatives") or [], row.get("grades") or []
    if not isinstance(positives, list) or not positives:
        raise CorruptRow("positives must be a list of at least one")
    if not isinstance(negatives, list):
        raise CorruptRow(f"negatives must be a list, but are {type(negatives).__name__}")
    if grades and not (isinstance(grades, list) and len(grades) == len(positives) and all(map(_is_grade, grades))):
        raise CorruptRow(f"grades must be {len(positives)} numbers above 0, one per positive, but are {grades}")
    return Fields(
        make_side(query, picture),
        tuple(make_side(positive, picture) for positive in positives),
        tuple(make_side(negative, picture) for negative in [*negatives, *_numbered(row)]),
        tuple(map(float, grades)),
        _scores(row),
        row.get("task"),
    )


def mmeb(row: Row, picture: ReadPicture, _rng: random.Random) -> Fields:
    """Read a row of MMEB-train; negatives are one or a list.

    Raises:
        CorruptRow: a field is missing or of the wrong type.
    """
    query = _mmeb_side(row.get("qry"), row.get("qry_image_path"), picture, "qry")
    positive = _mmeb_side(row.get("pos_text"), row.get("pos_image_path"), picture, "pos")
    texts, images = (_as_list(row.get(key)) for key in ("neg_text", "neg_image_path"))
    count = max(len(texts), len(images))
    texts, images = texts + [""] * (count - len(texts)), images + [""] * (count - len(images))
    negatives = [
        _mmeb_side(text, image, picture, "neg") for text, image in zip(texts, images, strict=True) if text or image
    ]
    return Fields(query, (positive,), tuple(negatives))


def llava(row: Row, picture: ReadPicture, rng: random.Random) -> Fields:
    """Read a conversation about a picture or a video, and draw one of its questions.

    Raises:
        CorruptRow: it shows nothing, or has no question with an answer.
    """
    turns = [turn for turn in row.get("conversations") or () if isinstance(turn, Mapping)]
    asked = [
        (one["value"], other["value"])
        for one, other in pairwise(turns)
        if (one.get("from"), other.get("from")) == ("human", "gpt")
    ]
    shown = {kind: row[kind] for kind in ("image", "video") if row.get(kind)}
    if not asked or len(shown) != 1:
        raise CorruptRow("it needs an image or a video, and conversations with a turn of human and one of gpt after it")
    question, answer = rng.choice(asked)
    instruction = _IMAGE_SLOT.sub("", question).strip()
    task = {"query": instruction, "target": get_task(DEFAULT).target}
    return Fields(make_side(shown, picture), (make_side(answer.strip(), picture),), task=task)


def webdataset(row: Row, picture: ReadPicture, rng: random.Random) -> Fields:
    """Read a shard's sample.

    Raises:
        CorruptRow: it has neither a .json with a query nor a .txt with a picture or a video.
    """
    described = row.get("json")
    if isinstance(described, dict) and ("query" in described or "anchor" in described):
        return pairs(described, lambda name: row[name] if name in row else picture(name), rng)
    kinds = {"image": PICTURES, "video": VIDEOS}
    shown = [{kind: row[name]} for kind, extensions in kinds.items() for name in extensions if name in row]
    text = row.get("txt")
    if not shown or not isinstance(text, str) or not text.strip():
        raise CorruptRow(f"sample {row['__key__']} has neither a .json with a query nor a .txt and a picture")
    return Fields(make_side(text.strip(), picture), (make_side(shown[0], picture),))


SCHEMAS: Mapping[str, Callable[[Row, ReadPicture, random.Random], Fields]] = {
    "pairs": pairs,
    "mmeb": mmeb,
    "llava": llava,
    "webdataset": webdataset,
}
"""Readers by the name that recipes use."""


def make_side(value: Any, picture: ReadPicture) -> Side:
    """Make a side of a text, of {"text", "image"}, of {"text", "video"} or of a list of these; its key is their hash.

    A video may say how many `frames` of it are used, and at how many per second (`fps`); see `Video`.

    Raises:
        CorruptRow: it is something else, or empty.
    """
    content = tuple(
        part for piece in (value if isinstance(value, list) else [value]) for part in _parts(piece, picture)
    )
    if not content:
        raise CorruptRow("a side has neither text nor image nor video")
    return Side(content, _key(content))


def read_picture(root: Path) -> ReadPicture:
    """Return a reader of media: bytes, Arrow's {"bytes", "path"}, data URIs, URLs, and paths below `root`."""

    def read(value: Any) -> bytes | str:
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str) or not value:
            raise CorruptRow(f"an image or video must be a path, a URL or bytes, but is {type(value).__name__}")
        if value.startswith(("http://", "https://")):
            return value
        try:
            if value.startswith("data:"):
                return base64.b64decode(value.partition(",")[2], validate=True)
            return (root / value).read_bytes()
        except OSError as error:
            raise CorruptRow(f"its file {value!r} cannot be read ({error.strerror})") from None
        except binascii.Error as error:
            raise CorruptRow(f"its data URI is not base64 ({error})") from None

    return read


def _parts(value: Any, picture: ReadPicture) -> list[Content]:
    """One piece of a side; a picture or video stands before the text that it goes with."""
    if isinstance(value, str):
        return [Text(value)] if value.strip() else []
    given = {key for key in value if value[key] is not None} if isinstance(value, Mapping) else {type(value).__name__}
    if not (given <= {"text", "image"} or {"video"} <= given <= {"text", "video", "frames", "fps"}):
        raise CorruptRow(
            "a side must be a text, or have text and image, or text and video (with frames and fps), or be a list of "
            f"these, but is {', '.join(sorted(given))}"
        )
    shown: list[Content] = [Image(picture(value["image"]))] if "image" in given else []
    if "video" in given:
        shown.append(_video(picture(value["video"]), {key: value[key] for key in given & {"frames", "fps"}}))
    return [*shown, *_parts(value.get("text") or "", picture)]


def _video(source: bytes | str, sampling: Mapping[str, Any]) -> Video:
    try:
        return Video(source, **sampling)
    except (InvalidInput, TypeError) as error:
        raise CorruptRow(f"its video: {error}") from None


def _mmeb_side(text: Any, image: Any, picture: ReadPicture, name: str) -> Side:
    """MMEB marks the picture's place in the text; the placeholder itself is no text."""
    if not isinstance(text or "", str):
        raise CorruptRow(f"{name}: the text must be a string, but is {type(text).__name__}")
    words = _IMAGE_SLOT.split(text or "", maxsplit=1)
    before, after = (words[0], words[1]) if len(words) == 2 else ("", words[0])
    pieces = [before.strip(), *([{"image": image}] if image else []), after.strip()]
    return make_side(pieces, picture)


def _key(content: Sequence[Content]) -> str:
    """Hash texts without regard to case and spacing, pictures and videos by their bytes."""
    digest = hashlib.sha256()
    for part in content:
        if isinstance(part, Text):
            digest.update(b"text:" + " ".join(part.text.casefold().split()).encode() + b"\0")
        else:
            digest.update(b"media:" + hashlib.sha256(exact_bytes(part)).digest())
    return digest.hexdigest()


def exact_bytes(part: Content) -> bytes:
    """Return what tells content apart: letters of a text, bytes (or address) of media, a video's sampling."""
    if isinstance(part, Text):
        return b"text:" + part.text.encode("utf-8", "surrogatepass")
    source = part.source if isinstance(part.source, bytes) else str(part.source).encode()
    return f"video:{part.frames}:{part.fps}:".encode() + source if isinstance(part, Video) else b"image:" + source


def _first(row: Row, *names: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise CorruptRow(f"it has no {names[0]}")


def _numbered(row: Row) -> list[Any]:
    """The negatives of sentence-transformers' columns: `negative`, `negative_1`, ..."""
    names = sorted((key for key in row if re.fullmatch(r"negative(_\d+)?", key)), key=lambda key: (len(key), key))
    return [row[name] for name in names if row[name] is not None]


def _scores(row: Row) -> tuple[float, ...]:
    """What `mllm-embed mine`, a reranker or a judge noted beside positive and negatives."""
    positive, negatives = row.get("positive_score"), row.get("negative_scores")
    if positive is None or negatives is None:
        return ()
    try:
        scores = tuple(map(float, [positive, *negatives]))
    except (TypeError, ValueError):
        scores = (math.nan,)
    if not all(map(math.isfinite, scores)):
        raise CorruptRow("positive_score must be a number, and negative_scores a list of numbers")
    return scores


def _is_grade(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value in (None, "") else [value]
