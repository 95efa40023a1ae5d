"""EmbedInput -> RenderedPrompt: loads the pictures, renders, refuses what the model cannot take, before any engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import PIL.Image

from mllm_embed import audio, documents, media, regions, video
from mllm_embed.audio import NO_AUDIO, AudioEncoder
from mllm_embed.backends.base import MAX_IMAGES
from mllm_embed.errors import InputError, InputTooLong, InvalidInput, InvalidMedia, MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.model_dir import ModelDir
from mllm_embed.prompts import PromptRenderer
from mllm_embed.regions import RegionEncoder
from mllm_embed.types import (
    DENSE,
    Audio,
    Content,
    Document,
    EmbedInput,
    Image,
    Outputs,
    Page,
    RenderedPrompt,
    SoftTokens,
    Text,
    Truncate,
    Video,
)
from mllm_embed.windows import Windows, split

_Decoded = tuple[EmbedInput, list[PIL.Image.Image], tuple[tuple[float, ...], ...]]
"""An input of texts and decoded pictures, the pictures, and the times of each video's frames."""
_CONCURRENT_LOADS = 8
_LONG_TEXT = 20_000
"""Characters from which tokenising leaves the event loop for a thread."""


class Preparer:
    """Prepares inputs for one model.

    Args:
        model_dir: the opened model directory.
        policy: where media may come from and how large they may be.
        region_encoder: writes regions of pictures.
        audio_encoder: makes soft tokens of the features of recordings.
    """

    def __init__(
        self,
        model_dir: ModelDir,
        policy: MediaPolicy,
        region_encoder: RegionEncoder,
        audio_encoder: AudioEncoder = NO_AUDIO,
    ) -> None:
        self._policy = policy
        self._audio = audio_encoder
        self._width = model_dir.recipe.dimensions
        self._regions = region_encoder
        self._pixels = model_dir.pixels
        self._timed = model_dir.recipe.times_frames
        self._max_tokens = model_dir.recipe.max_tokens
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)

    async def prepare(
        self, inputs: Sequence[EmbedInput], instruction: str, truncate: Truncate = "none", outputs: Outputs = DENSE
    ) -> list[RenderedPrompt]:
        """Prepare inputs concurrently, in order.

        Args:
            inputs: the inputs.
            instruction: for the inputs without one of their own.
            truncate: cut the text of inputs that are too long, or refuse them.
            outputs: what is wanted besides the dense vector.

        Raises:
            InputError: the first input that cannot be embedded, with its index.
        """
        gate, budget = asyncio.Semaphore(_CONCURRENT_LOADS), _PixelBudget(self._policy.max_total_pixels)
        call = _Call(instruction, truncate, outputs, gate, budget)
        results = await asyncio.gather(*(self._one(item, call) for item in inputs), return_exceptions=True)
        prompts: list[RenderedPrompt] = []
        for index, result in enumerate(results):
            if isinstance(result, InputError):
                raise result.at(index)
            if isinstance(result, BaseException):
                raise result
            prompts.append(result)
        return prompts

    def windows(self, text: str, how: Windows, instruction: str) -> list[Text]:
        """Cut a text into windows that the model can read under an instruction; see `windows.split`."""
        return split(text, how, instruction, self._renderer, self._max_tokens)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of native token ids; see `PromptRenderer.decode`."""
        return self._renderer.decode(token_ids)

    async def _one(self, item: EmbedInput, call: _Call) -> RenderedPrompt:
        async with call.gate:
            item, images, times = await self._decoded(item, call.budget)
            if sum(len(content.text) for content in item.content if isinstance(content, Text)) > _LONG_TEXT:
                prompt = await asyncio.to_thread(self._render, item, images, call)
            else:
                prompt = self._render(item, images, call)
            return replace(prompt, frame_times=times) if times else prompt

    async def _decoded(self, item: EmbedInput, budget: _PixelBudget) -> _Decoded:
        """Load an input's media, one after the other: what is not text becomes pictures in its place."""
        check_count(item.content)  # before anything is opened, and again when the pages of documents are known
        parts = await documents.opened(item.content, self._policy)
        check_count(parts)
        content: list[Content] = []
        images: list[PIL.Image.Image] = []
        times: list[tuple[float, ...]] = []
        for part in parts:
            if isinstance(part, Audio):
                content.append(await asyncio.to_thread(audio.encoded, part, self._audio, self._width))
                continue
            if isinstance(part, Text | SoftTokens):
                content.append(part)
                continue
            budget.check()
            if isinstance(part, Video):
                clip = await video.load(part, self._policy)
                shown: Sequence[Text | Image] = clip.content(timed=self._timed)
                times.append(clip.times)
            else:
                shown = await self._shown(part)
            pictures = _pictures(shown)
            for picture in pictures:
                self._check_aspect(picture)
                budget.spend(picture.width * picture.height)
            content += shown
            images += pictures
        return replace(item, content=tuple(content)), images, tuple(times)

    async def _shown(self, part: Image | Page) -> Sequence[Text | Image]:
        """Return what stands in the prompt for a picture: itself, or what the encoder of regions makes of it."""
        if isinstance(part, Page):
            return (Image(await documents.load(part, self._policy)),)
        picture = await media.load(part, self._policy)
        if part.region is None:
            return (Image(picture),)
        self._check_aspect(picture)
        mask = await regions.load_mask(part.region, picture.size, self._policy)
        return await media.in_decoder(self._regions.encode, picture, part.region, mask)

    def _check_aspect(self, image: PIL.Image.Image) -> None:
        longer, shorter = max(image.size), min(image.size)
        if longer > self._pixels.MAX_ASPECT * shorter:
            raise InvalidMedia(
                f"the longer side of an image may be at most {self._pixels.MAX_ASPECT} times the shorter one, "
                f"but the image is {image.width} x {image.height}"
            )

    def _render(self, item: EmbedInput, images: Sequence[PIL.Image.Image], call: _Call) -> RenderedPrompt:
        """Render an input, cut to the model's limit if asked; pieces may merge, so it may take several cuts."""
        prompt = self._renderer.render(item, call.instruction, images)
        while call.truncate != "none" and (excess := self._length(prompt) - self._max_tokens) > 0:
            shorter = self._renderer.shorten(item, excess, call.truncate)
            if not any(not isinstance(content, Text) or content.text.strip() for content in shorter.content):
                break  # pictures or the instruction alone are too long
            if shorter == item:
                break
            item, prompt = shorter, self._renderer.render(shorter, call.instruction, images)
        self._check_length(prompt)
        if call.outputs == DENSE:
            return prompt
        wanted = call.outputs.multivector
        mask = self._renderer.content_mask(item, call.instruction, images, self._pixels) if wanted else None
        return replace(prompt, content=mask, words=call.outputs.lexical)

    def _length(self, prompt: RenderedPrompt) -> int:
        return len(self._renderer.expand(prompt, self._pixels))

    def _check_length(self, prompt: RenderedPrompt) -> None:
        length = self._length(prompt)
        if length > self._max_tokens:
            visual = length - len(prompt.token_ids) + len(prompt.images)
            raise InputTooLong(
                f"the model takes at most {self._max_tokens} tokens, but the input has {length} "
                f"({length - visual} of text and instruction, {visual} of {len(prompt.images)} images)"
            )


@dataclass(frozen=True)
class _Call:
    """What the inputs of one call share."""

    instruction: str
    truncate: Truncate
    outputs: Outputs
    gate: asyncio.Semaphore
    budget: _PixelBudget


class _PixelBudget:
    """Counts the pixels of one call; once they are spent, no further picture is decoded."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._spent = 0

    def spend(self, pixels: int) -> None:
        self._spent += pixels
        self.check()

    def check(self) -> None:
        if self._limit is not None and self._spent > self._limit:
            raise MediaTooLarge(f"the images of a request may have at most {self._limit:,} pixels together")


def check_count(content: Sequence[Content]) -> None:
    """Raise `InvalidInput` if content means more pictures than an input may hold; nothing is opened for it."""
    asked = sum(part.pictures for part in content if not isinstance(part, Text))
    if asked > MAX_IMAGES:
        raise InvalidInput(f"an input may hold at most {MAX_IMAGES} images{_counted(content)}, but holds {asked}")


def _counted(content: Sequence[Content]) -> str:
    """Say which pictures are counted that the caller may not think of."""
    kinds = ["frames of videos"] * any(isinstance(part, Video) for part in content)
    kinds += ["pages of documents"] * any(isinstance(part, Document | Page) for part in content)
    kinds += ["close-ups of regions"] * any(isinstance(part, Image) and part.region for part in content)
    return f", {' and '.join(kinds)} among them" if kinds else ""


def _pictures(shown: Sequence[Text | Image]) -> list[PIL.Image.Image]:
    return [part.source for part in shown if isinstance(part, Image) and isinstance(part.source, PIL.Image.Image)]
