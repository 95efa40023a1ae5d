"""The few central values: what an input is, what a model reads, what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mllm_embed.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray


Truncate = Literal["none", "start", "end"]
"""What to do with an input of more tokens than the model takes: refuse it, or cut its text at the start or the end."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text. Whatever it contains is text: control tokens typed by a user stay inert."""

    text: str


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask as COCO's annotations write it, uncompressed.

    Attributes:
        size: height and width in pixels.
        counts: lengths of runs down the columns, first one outside the region (perhaps 0 long), then one inside, ...
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.counts) > _MOST_RUNS:
            raise InvalidInput(f"a mask may have at most {_MOST_RUNS:,} runs, but has {len(self.counts):,}")
        if not _are_numbers(self.size, 2, int) or not _are_numbers(self.counts, len(self.counts), int):
            raise InvalidInput(f"a mask's size (height, width) and counts must be integers from 0 to {_FAR - 1:,}")
        if sum(self.counts) != self.size[0] * self.size[1]:
            raise InvalidInput(
                f"a mask's counts must add up to its {self.size[0] * self.size[1]:,} pixels ({self.size[1]} x "
                f"{self.size[0]}), but add up to {sum(self.counts):,}"
            )


_MOST_RUNS = 100_000
_FAR = 10**9


@dataclass(frozen=True, slots=True)
class Region:
    """What of a picture is meant: one of the three, in pixels of the picture as it is seen, upright.

    Attributes:
        point: x and y; from the left and top edge, as in `box`.
        box: left, top, right, bottom.
        mask: a picture of the same size, white inside the region and black outside, or `RunLengths`.
    """

    point: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: bytes | str | Path | PIL.Image.Image | RunLengths | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("point", "box", "mask") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidInput(f"a region must be one of point, box and mask, but is {' and '.join(given) or 'none'}")
        for name, numbers, count in (("point", self.point, 2), ("box", self.box, 4)):
            if numbers is not None and not _are_numbers(numbers, count):
                raise InvalidInput(f"the {name} of a region must be {count} finite numbers")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise InvalidInput(
                "the box of a region must have left < right and top < bottom, but is " + ", ".join(map(str, self.box))
            )


def _are_numbers(values: Any, count: int, kind: type[Any] = Real) -> bool:
    """Whether these are finite numbers of a kind; comparing refuses NaN, infinity and integers beyond any float.

    Integers must not be negative, since they count pixels.
    """
    least = 0 if kind is int else -_FAR
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(one, kind) and not isinstance(one, bool) and least <= one < _FAR for one in values)
    )


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, or what a region of it shows.

    Attributes:
        source: encoded bytes, a `Path`, a PIL image, or a string (http(s) URL, data URI or file path).
        region: what of it is meant; the rest of the picture stays its context.
    """

    source: bytes | str | Path | PIL.Image.Image
    region: Region | None = None

    @property
    def pictures(self) -> int:
        """Most pictures that the model reads for it."""
        return 1 if self.region is None else 2


@dataclass(frozen=True, slots=True)
class Video:
    """A video, embedded as its frames: pictures in order, at the video's place in the input.

    Attributes:
        source: encoded bytes, a `Path`, a string (http(s) URL, data URI or file path), or the frames themselves.
            Animated GIF and WebP are videos too.
        frames: most frames that are used; without `fps` as many, evenly spaced, the first and the last among them.
        fps: one frame per 1 / fps seconds instead, thinned out evenly to `frames`.
        times: seconds of each frame, ascending, where the source is frames; without them a frame's number is its time.
    """

    source: bytes | str | Path | tuple[PIL.Image.Image, ...]
    frames: int = 8
    fps: float | None = None
    times: tuple[float, ...] | None = None

    @property
    def pictures(self) -> int:
        """Most pictures that the model reads for it."""
        return self.frames

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InvalidInput(f"frames of a video must be at least 1, but is {self.frames}")
        if self.fps is not None and not self.fps > 0:
            raise InvalidInput(f"fps of a video must be greater than 0, but is {self.fps}")
        if self.times is not None and not (isinstance(self.source, tuple) and len(self.source) == len(self.times)):
            raise InvalidInput("times of a video are for frames that are given, one for each")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a PDF, embedded as a picture; `documents.pages` gives all pages of one.

    Attributes:
        source: encoded bytes, a `Path`, or a string (http(s) URL, data URI or file path).
        number: of the page, from 1.
        dpi: dots per inch at which it is drawn.
    """

    source: bytes | str | Path
    number: int = 1
    dpi: int = 144

    @property
    def pictures(self) -> int:
        """Most pictures that the model reads for it."""
        return 1


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF, or some of its pages: pictures in order, at the document's place in the input.

    Attributes:
        source: encoded bytes, a `Path`, or a string (http(s) URL, data URI or file path).
        numbers: of the pages that are read, from 1, in this order; None reads all of them.
        dpi: dots per inch at which they are drawn.
    """

    source: bytes | str | Path
    numbers: tuple[int, ...] | None = None
    dpi: int = 144

    @property
    def pictures(self) -> int:
        """How many pictures the model reads for it; at least 1, as long as nobody has opened it to count its pages."""
        return 1 if self.numbers is None else len(self.numbers)

    def __post_init__(self) -> None:
        if self.numbers is not None and not self.numbers:
            raise InvalidInput("the pages of a document must be at least one, but are none")


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """A recording, as features that somebody has computed; the embedder's `AudioEncoder` makes soft tokens of them.

    Attributes:
        source: the features, float32, shape [steps, F]; what they mean is between their maker and the encoder.
    """

    source: NDArray[np.float32]

    @property
    def pictures(self) -> int:
        """None are read for it."""
        return 0


@dataclass(frozen=True, slots=True, eq=False)
class SoftTokens:
    """Vectors that stand in the model's sequence as its token embeddings do.

    Attributes:
        source: the vectors, float32, shape [tokens, D] for a model of width D; at least one.
    """

    source: NDArray[np.float32]

    @property
    def pictures(self) -> int:
        """None are read for them."""
        return 0


Opened = Text | Image | Video | Page | Audio
"""Content that is one thing, as pages are of which a document consists."""
Content = Opened | Document | SoftTokens


@dataclass(frozen=True, slots=True)
class EmbedInput:
    """One thing to embed: content in order (order is meaning) and an optional instruction.

    One `EmbedInput` gives one vector, however many texts and pictures it holds.
    """

    content: tuple[Content, ...]
    instruction: str | None = None

    def __post_init__(self) -> None:
        if not self.content:
            raise InvalidInput("an input needs at least one text or image, but has none")

    @classmethod
    def of(cls, *items: Any, instruction: str | None = None) -> EmbedInput:
        """Build an input, in order, from strings (text), `Path`s and PIL images (pictures), and values of `Content`.

        Raises:
            InvalidInput: no item, or an item of another type.
        """
        return cls(tuple(_content(item) for item in items), instruction)


def _content(item: Any) -> Content:
    """Coerce one item; strings are text, so a picture given as a string must be wrapped in `Image`."""
    if isinstance(item, Content):
        return item
    if isinstance(item, str):
        return Text(item)
    if isinstance(item, (bytes, Path)) or hasattr(item, "convert"):
        return Image(item)
    raise InvalidInput(f"content must be str, Text, Image, bytes, Path or a PIL image, but is {type(item).__name__}")


def as_inputs(items: Iterable[Any]) -> list[EmbedInput]:
    """Coerce a mixed list: `EmbedInput`s stay, a tuple or list is one interleaved input, the rest one item each."""
    inputs = []
    for index, item in enumerate(items):
        try:
            if isinstance(item, EmbedInput):
                inputs.append(item)
            elif isinstance(item, (tuple, list)):
                inputs.append(EmbedInput.of(*item))
            else:
                inputs.append(EmbedInput.of(item))
        except InvalidInput as error:
            raise error.at(index) from None
    return inputs


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is wanted of a forward pass besides its dense vector.

    Attributes:
        multivector: a vector for each token of the input, for late interaction (`scoring.maxsim`).
        lexical: how many words, the heaviest ones, that the model's own language-model head gives; 0 wants none.
    """

    multivector: bool = False
    lexical: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.lexical <= MAX_WORDS:
            raise InvalidInput(f"lexical must be between 0 and {MAX_WORDS} words, but is {self.lexical}")


MAX_WORDS = 1024
"""Most words of a lexical output."""
DENSE = Outputs()
"""The dense vector alone."""


SOFT_ID = -1
"""Stands for a soft token among token ids; no vocabulary has it."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """What a model reads: token ids with one placeholder id per picture, and the pictures in the same order.

    And what is wanted of it besides the dense vector.

    Attributes:
        token_ids: prompt token ids; each picture is one `image_pad` id, expanded by the backend; each soft token is
            one `SOFT_ID`.
        images: decoded RGB pictures, as many as there are placeholders.
        frame_times: of each video, the seconds of the frames that are among the pictures.
        content: for each token that the model reads, visual tokens included, whether it is the input's own; given where
            a multivector is wanted.
        words: how many words are wanted of the lexical output.
        soft: vectors of the soft tokens, in order, float32, shape [tokens, D]; None if there are none.
    """

    token_ids: tuple[int, ...]
    images: tuple[PIL.Image.Image, ...] = ()
    frame_times: tuple[tuple[float, ...], ...] = ()
    content: tuple[bool, ...] | None = None
    words: int = 0
    soft: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """One vector, and what else was wanted of its forward pass.

    Attributes:
        vector: float32, shape [D].
        tokens: prompt tokens that the model read for it, visual tokens included.
        pixels: of its pictures, as they came.
        frame_times: of each video, the seconds of the frames that were used.
        multivector: of the input's own tokens, in order, float32, shape [T, D]; None if it was not wanted.
        lexical: words and their weights, the heaviest first; None if they were not wanted.
        parts: of what was embedded part by part, each part's own unit vector, shape [P, D]; `vector` is their mean.
    """

    vector: NDArray[np.float32]
    tokens: int
    pixels: int = 0
    frame_times: tuple[tuple[float, ...], ...] = ()
    multivector: NDArray[np.float32] | None = None
    lexical: Mapping[str, float] | None = None
    parts: NDArray[np.float32] | None = None
