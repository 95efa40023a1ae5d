"""EmbedInput + instruction + family -> RenderedPrompt: the only place where prompt text is made.

Control tokens come from the template alone and are placed by id. Everything that a user supplies (texts and the
instruction) is tokenised with special tokens split, so `<|image_pad|>` typed by a user is seven ordinary letters' worth
of tokens and never a picture slot. Neighbouring plain pieces are joined before they are tokenised, hence the ids equal
those of the whole prompt written as one string.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mllm_embed.errors import IncompatibleCheckpoint, InvalidInput
from mllm_embed.families import Family, Template
from mllm_embed.families.pictures import PictureRule
from mllm_embed.types import SOFT_ID, Content, EmbedInput, Image, RenderedPrompt, SoftTokens, Text

if TYPE_CHECKING:
    import PIL.Image
    from tokenizers import Encoding, Tokenizer

MARKER = re.compile(r"(\{(?:instruction|content|images|texts|kind)\})")
"""What a template marks for filling."""
_TOKEN = re.compile(r"<\|?\w+\|?>|</s>")
"""What a control token looks like."""


Piece = str | tuple[int, ...]
"""A part of a prompt: plain text, or ids of control tokens."""


class _Own(str):
    """Text of the input itself, not of its instruction or the template."""

    __slots__ = ()


class PromptRenderer:
    """Renders inputs for one model: its tokenizer, its family's picture slot, its recorded template.

    Args:
        tokenizer_file: the model's `tokenizer.json`.
        family: the backbone family.
        template: the prompt format.

    Raises:
        IncompatibleCheckpoint: no readable tokenizer, or one that lacks a control token of family or template.
    """

    def __init__(self, tokenizer_file: Path, family: Family, template: Template) -> None:
        self.family = family
        self.template = template
        self._tokenizer = load_tokenizer(tokenizer_file)
        self._control = {
            token.content: token_id
            for token_id, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        self._slot = tuple(self.control_id(token) for token in template.image_slot or family.image_slot)
        self.image_token_id = self.control_id(family.image_token)
        self._split_control = re.compile("|".join(map(re.escape, sorted(self._control, key=len, reverse=True))))
        alone = template.text if template.text_alone is None else template.text_alone
        texts = (template.text, alone, alone if template.bare is None else template.bare)
        self._with_images, self._text_alone, self._bare = (tuple(filter(None, MARKER.split(text))) for text in texts)
        self._separators = (" ", "\n") if "{texts}" in template.text else ()
        for token in _TOKEN.findall("".join(texts)):
            self.control_id(token)
        self._opening, self._closing = _surroundings(self._tokenizer)
        self._stand_ins: dict[str | None, tuple[int, ...]] = {
            None: (self.control_id(family.visual_token or family.image_token),)
        }

    def render(self, item: EmbedInput, instruction: str, images: Sequence[PIL.Image.Image]) -> RenderedPrompt:
        """Render one input.

        Args:
            item: the content, in order.
            instruction: fills the template's `{instruction}`; the item's own instruction, if any, wins.
            images: the decoded pictures of `item`, in order.

        Raises:
            InvalidInput: an empty text without any picture beside it, or text that is not valid Unicode.
        """
        _check_content(item)
        soft = [content.source for content in item.content if isinstance(content, SoftTokens)]
        if soft and "{content}" not in self.template.text:
            raise InvalidInput(f"the template {self.template.name!r} has no place for soft tokens")
        ids = self._opening + self._ids(self._assemble(item, instruction)) + self._closing
        return RenderedPrompt(ids, tuple(images), soft=np.concatenate(soft) if soft else None)

    def _assemble(self, item: EmbedInput, instruction: str) -> list[Piece]:
        """Fill the template's markers; `instruction` is for an item without one of its own."""
        fillings = self._fillings(item, item.instruction if item.instruction is not None else instruction)
        alone = self._text_alone if any(fillings["{instruction}"]) else self._bare
        segments = self._with_images if any(fillings["{images}"]) else alone
        pieces: list[Piece] = []
        filled = False  # whether any of the markers since the last piece of control text was
        for segment, following in zip(segments, (*segments[1:], ""), strict=True):
            if segment in fillings:
                pieces += fillings[segment]
                filled = filled or any(fillings[segment])
            elif segment in self._separators and following in fillings:
                pieces += [segment] if filled and any(fillings[following]) else []
            else:
                pieces += self._control_pieces(segment)
                filled = False
        return pieces

    def _fillings(self, item: EmbedInput, instruction: str) -> dict[str, list[Piece]]:
        """Return what each marker of the template becomes."""
        images = [content for content in item.content if isinstance(content, Image)]
        texts = [content.text for content in item.content if isinstance(content, Text) and content.text]
        return {
            "{instruction}": [_with_full_stop(instruction) if self.template.full_stop else instruction],
            "{content}": [piece for content in item.content for piece in self._pieces(content)],
            "{images}": [piece for image in images for piece in self._pieces(image)],
            "{texts}": [_Own(" ".join(texts))],
            "{kind}": [self.template.kinds[bool(images) + bool(images and texts)]],
        }

    def expand(self, prompt: RenderedPrompt, pictures: PictureRule) -> list[int]:
        """Return the ids that the model reads: each placeholder gives way to what stands for its picture.

        Args:
            prompt: a rendered prompt.
            pictures: how the model reads pictures.
        """
        slots = iter(pictures.expand([image.size for image in prompt.images]))
        ids: list[int] = []
        for token_id in prompt.token_ids:
            if token_id == self.image_token_id:
                for piece, count in next(slots):
                    ids += self._stand_in(piece) * count
            else:
                ids.append(token_id)
        return ids

    def content_mask(
        self, item: EmbedInput, instruction: str, images: Sequence[PIL.Image.Image], pictures: PictureRule
    ) -> tuple[bool, ...]:
        """Return, for each token that the model reads, whether it is the input's own.

        Its own are the tokens that hold a character of its texts, and the visual tokens of its pictures. Not its own
        are the instruction, the template, and what marks a picture's borders, rows or tiles.

        Args:
            item: the content, in order.
            instruction: as for `render`.
            images: the decoded pictures of `item`, in order.
            pictures: how the model reads pictures.
        """
        slots = iter(pictures.expand([image.size for image in images]))
        mask = [False] * len(self._opening)
        run: list[str] = []
        for piece in [*self._assemble(item, instruction), ()]:
            if isinstance(piece, str):
                run.append(piece)
                continue
            mask += self._own_tokens(run)
            run = []
            for token_id in piece:
                if token_id == self.image_token_id:
                    for part, count in next(slots):
                        mask += [part is None] * len(self._stand_in(part)) * count
                else:
                    mask.append(token_id == SOFT_ID)
        return (*mask, *[False] * len(self._closing))

    def _own_tokens(self, run: Sequence[str]) -> list[bool]:
        """Return for each token of neighbouring texts whether it holds a character that is the input's own."""
        text = "".join(run)
        own = [isinstance(piece, _Own) for piece in run for _ in piece]
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets if text else []
        return [any(own[start:end]) for start, end in spans]

    @property
    def surroundings(self) -> tuple[str, str]:
        """Control text that the tokenizer puts before and behind every prompt."""
        opening, closing = (self._tokenizer.decode(ids, False) for ids in (self._opening, self._closing))
        return opening, closing

    @property
    def visual_token_id(self) -> int:
        """The id that is repeated for a picture."""
        return self._stand_ins[None][0]

    def _stand_in(self, piece: str | None) -> tuple[int, ...]:
        """Return the ids of a piece that stands for a part of a picture."""
        if piece is not None and piece not in self._stand_ins:
            control = self._control.get(piece)
            self._stand_ins[piece] = tuple(self.tokenize(piece)) if control is None else (control,)
        return self._stand_ins[piece]

    def _pieces(self, content: Content) -> tuple[Piece, ...]:
        if isinstance(content, Text):
            return (_Own(content.text),)
        if isinstance(content, SoftTokens):
            return ((SOFT_ID,) * len(content.source),)
        if not isinstance(content, Image) or content.region is not None:
            what = "region" if isinstance(content, Image) else type(content).__name__
            raise InvalidInput(f"a {what} must become pictures or soft tokens before it is rendered")
        margin = self.family.image_margin
        return (margin, self._slot, margin)

    def _control_pieces(self, text: str) -> list[Piece]:
        """Split template text into control ids and plain text."""
        pieces: list[Piece] = []
        end = 0
        for match in self._split_control.finditer(text):
            pieces += [text[end : match.start()], (self._control[match.group()],)]
            end = match.end()
        return [*pieces, text[end:]]

    def _ids(self, pieces: Sequence[Piece]) -> tuple[int, ...]:
        """Tokenise runs of plain text, keep control ids."""
        ids: list[int] = []
        plain = ""
        for piece in [*pieces, ()]:
            if isinstance(piece, str):
                plain += piece
                continue
            if plain:
                ids += self.tokenize(plain)
                plain = ""
            ids += piece
        return tuple(ids)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of plain text, control tokens in it split.

        Raises:
            InvalidInput: the text is not valid Unicode.
        """
        ids: list[int] = self._encoded(text).ids
        return ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where in a text its tokens stand: first character, and the one behind the last.

        Raises:
            InvalidInput: the text is not valid Unicode.
        """
        found: list[tuple[int, int]] = self._encoded(text).offsets
        return found

    def _encoded(self, text: str) -> Encoding:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            raise InvalidInput("text is not valid Unicode (it holds a lone surrogate)") from None

    def shorten(self, item: EmbedInput, tokens: int, end: Literal["start", "end"]) -> EmbedInput:
        """Cut tokens off the texts of an input; its pictures, its instruction and the template stay whole.

        Args:
            item: the input.
            tokens: how many to cut off, at least 1; all text goes if there is less.
            end: where to cut: the first texts from their start on, or the last ones from their end back.
        """
        content = list(item.content)
        for index in range(len(content)) if end == "start" else reversed(range(len(content))):
            piece = content[index]
            if not isinstance(piece, Text) or tokens <= 0:
                continue
            spans = self.spans(piece.text)
            if len(spans) <= tokens:
                kept = ""
            elif end == "start":
                kept = piece.text[spans[tokens][0] :]
            else:
                kept = piece.text[: spans[-tokens][0]]
            content[index] = Text(kept)
            tokens -= min(tokens, len(spans))
        return replace(item, content=tuple(content))

    def control_id(self, token: str) -> int:
        """Return the id of a control token.

        Raises:
            IncompatibleCheckpoint: the tokenizer has no such special token.
        """
        try:
            return self._control[token]
        except KeyError:
            raise IncompatibleCheckpoint(
                f"the tokenizer has no special token {token!r}, which family {self.family.name} needs"
            ) from None

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of native token ids, for callers that send ids instead of text.

        Raises:
            InvalidInput: an id outside the vocabulary, the id of a control token, or ids that no text has. Another
                tokenizer's ids nearly always spell such a sequence: their text, tokenised here, has other ids.
        """
        size = self._tokenizer.get_vocab_size()
        for token_id in token_ids:
            if not 0 <= token_id < size:
                raise InvalidInput(f"token ids must be between 0 and {size - 1}, but one is {token_id}")
            if token_id in self._control.values():
                raise InvalidInput(f"token id {token_id} is a control token, which input may not contain")
        text = str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))
        if self.tokenize(text) != list(token_ids):
            raise InvalidInput(
                "the token ids are not what this model's tokenizer makes of any text, so they seem to be another "
                "tokenizer's; send text instead"
            )
        return text


def _surroundings(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer's own post-processor puts before and behind any text.

    Llama's opens with `<s>`, Qwen3-Embedding's closes with `<|endoftext|>`.
    """
    whole = tokenizer.encode("x", add_special_tokens=True)
    added = whole.special_tokens_mask
    first, last = added.index(0), len(added) - added[::-1].index(0)
    return tuple(whole.ids[:first]), tuple(whole.ids[last:])


def _with_full_stop(instruction: str) -> str:
    """End an instruction with a full stop, unless it is empty or ends with punctuation of any script."""
    instruction = instruction.strip()
    ends = not instruction or unicodedata.category(instruction[-1]).startswith("P")
    return instruction if ends else instruction + "."


def _check_content(item: EmbedInput) -> None:
    if all(isinstance(content, Text) and not content.text.strip() for content in item.content):
        raise InvalidInput("text must not be empty")


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`; what looks like a control token in a text is text for it.

    Raises:
        IncompatibleCheckpoint: the file cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception on a bad file
        raise IncompatibleCheckpoint(f"{path} is not a readable tokenizer file: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # special tokens in text are split, that is: text
    return tokenizer
