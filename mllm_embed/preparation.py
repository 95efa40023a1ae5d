"""EmbedInput -> RenderedPrompt: loads the pictures, renders, refuses what the model cannot take, before any engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import PIL.Image

from mllm_embed import media
from mllm_embed.backends.base import MAX_IMAGES
from mllm_embed.errors import InputError, InputTooLong, InvalidInput, InvalidMedia, MediaTooLarge
from mllm_embed.families.base import PixelRule
from mllm_embed.media import MediaPolicy
from mllm_embed.model_dir import ModelDir
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, Image, RenderedPrompt, Text, Truncate

_CONCURRENT_LOADS = 8
_LONG_TEXT = 20_000
"""Characters from which tokenising leaves the event loop for a thread."""


class Preparer:
    """Prepares inputs for one model.

    Args:
        model_dir: the opened model directory.
        policy: where media may come from and how large they may be.
    """

    def __init__(self, model_dir: ModelDir, policy: MediaPolicy) -> None:
        self._policy = policy
        self._pixels = model_dir.pixels
        self._max_tokens = model_dir.recipe.max_tokens
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)

    async def prepare(
        self, inputs: Sequence[EmbedInput], instruction: str, truncate: Truncate = "none"
    ) -> list[RenderedPrompt]:
        """Prepare inputs concurrently, in order.

        Args:
            inputs: the inputs.
            instruction: for the inputs without one of their own.
            truncate: cut the text of inputs that are too long, or refuse them.

        Raises:
            InputError: the first input that cannot be embedded, with its index.
        """
        gate, budget = asyncio.Semaphore(_CONCURRENT_LOADS), _PixelBudget(self._policy.max_total_pixels)
        work = (self._one(item, instruction, truncate, gate, budget) for item in inputs)
        results = await asyncio.gather(*work, return_exceptions=True)
        prompts: list[RenderedPrompt] = []
        for index, result in enumerate(results):
            if isinstance(result, InputError):
                raise result.at(index)
            if isinstance(result, BaseException):
                raise result
            prompts.append(result)
        return prompts

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of native token ids; see `PromptRenderer.decode`."""
        return self._renderer.decode(token_ids)

    async def _one(
        self, item: EmbedInput, instruction: str, truncate: Truncate, gate: asyncio.Semaphore, budget: _PixelBudget
    ) -> RenderedPrompt:
        sources = [content for content in item.content if isinstance(content, Image)]
        if len(sources) > MAX_IMAGES:
            raise InvalidInput(f"an input may hold at most {MAX_IMAGES} images, but holds {len(sources)}")
        async with gate:
            images = [await self._load(source, budget) for source in sources]
            if sum(len(content.text) for content in item.content if isinstance(content, Text)) > _LONG_TEXT:
                return await asyncio.to_thread(self._render, item, instruction, images, truncate)
            return self._render(item, instruction, images, truncate)

    def _render(
        self, item: EmbedInput, instruction: str, images: Sequence[PIL.Image.Image], truncate: Truncate
    ) -> RenderedPrompt:
        """Render an input, cut to the model's limit if asked; pieces may merge, so it may take several cuts."""
        prompt = self._renderer.render(item, instruction, images)
        while truncate != "none" and (excess := self._length(prompt) - self._max_tokens) > 0:
            shorter = self._renderer.shorten(item, excess, truncate)
            if not any(isinstance(content, Image) or content.text.strip() for content in shorter.content):
                break  # pictures or the instruction alone are too long
            if shorter == item:
                break
            item, prompt = shorter, self._renderer.render(shorter, instruction, images)
        self._check_length(prompt)
        return prompt

    async def _load(self, source: Image, budget: _PixelBudget) -> PIL.Image.Image:
        budget.check()
        image = await media.load(source, self._policy)
        _check_aspect(image)
        budget.spend(image.width * image.height)
        return image

    def _length(self, prompt: RenderedPrompt) -> int:
        return len(prompt.token_ids) - len(prompt.images) + self._visual_tokens(prompt)

    def _visual_tokens(self, prompt: RenderedPrompt) -> int:
        return sum(self._pixels.visual_tokens(*image.size) for image in prompt.images)

    def _check_length(self, prompt: RenderedPrompt) -> None:
        length, visual = self._length(prompt), self._visual_tokens(prompt)
        if length > self._max_tokens:
            raise InputTooLong(
                f"the model takes at most {self._max_tokens} tokens, but the input has {length} "
                f"({length - visual} of text and instruction, {visual} of {len(prompt.images)} images)"
            )


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


def _check_aspect(image: PIL.Image.Image) -> None:
    longer, shorter = max(image.size), min(image.size)
    if longer > PixelRule.MAX_ASPECT * shorter:
        raise InvalidMedia(
            f"the longer side of an image may be at most {PixelRule.MAX_ASPECT} times the shorter one, "
            f"but the image is {image.width} x {image.height}"
        )
