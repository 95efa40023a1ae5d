"""Media of a request: fetched and decoded in the server's own bounded pool, never by the engine's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import PIL.Image

from mllm_embed import media, video
from mllm_embed.errors import MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.sources import fetched, is_url
from mllm_embed.types import Content, EmbedInput, Image, Video
from mllm_embed_serving.metrics import Metrics

CONCURRENT_FETCHES = 64
"""URLs that are fetched at once, over all requests."""


class PixelBudget:
    """Counts the pixels of one request; once they are spent, no further picture of it is decoded.

    Args:
        limit: most pixels of all pictures together; None is no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._spent = 0

    def spend(self, pixels: int) -> None:
        """Count decoded pixels.

        Raises:
            MediaTooLarge: together they are more than the limit.
        """
        self._spent += pixels
        if self._limit is not None and self._spent > self._limit:
            raise MediaTooLarge(f"the images of a request may have at most {self._limit:,} pixels together")


class Pictures:
    """Loads pictures and videos under one policy, and measures how long that takes.

    Args:
        policy: where pictures may come from and how large they may be.
        metrics: takes the times of the stages `fetch` and `decode`.

    Attributes:
        policy: see above.
    """

    def __init__(self, policy: MediaPolicy, metrics: Metrics) -> None:
        self.policy = policy
        self._metrics = metrics
        self._fetches = asyncio.Semaphore(CONCURRENT_FETCHES)

    def budget(self) -> PixelBudget:
        """Return the pixel budget of one request."""
        return PixelBudget(self.policy.max_total_pixels)

    async def fetched(self, item: EmbedInput) -> EmbedInput:
        """Return the item with the bytes of its media in place of their URLs; other media stay as they are.

        Raises:
            InputError: URLs are not allowed, or one does not deliver.
        """
        if not any(_is_url(content) for content in item.content):
            return item
        return replace(item, content=await _each(item.content, self._fetch))

    async def decoded(self, item: EmbedInput, budget: PixelBudget) -> EmbedInput:
        """Return the item with decoded pictures, and videos as the frames that are used.

        Raises:
            InputError: bytes that are no picture or video, or too large, or more pixels than the budget has left.
        """
        if not any(isinstance(content, (Image, Video)) for content in item.content):
            return item

        async def decode(content: Content) -> Content:
            if not isinstance(content, (Image, Video)):
                return content
            budget.spend(0)
            with self._metrics.stage("decode"):
                decoded, pictures = await self._decode(content)
            budget.spend(sum(picture.width * picture.height for picture in pictures))
            return decoded

        return replace(item, content=await _each(item.content, decode))

    async def _decode(self, content: Image | Video) -> tuple[Content, Sequence[PIL.Image.Image]]:
        if isinstance(content, Video):
            clip = await video.load(content, self.policy)
            return Video(clip.frames, len(clip.frames), times=clip.times), clip.frames
        picture = await media.load(content, self.policy)
        picture.info.clear()  # it is upright now: whoever read its EXIF orientation again would turn it again
        return replace(content, source=picture), (picture,)

    async def _fetch(self, content: Content) -> Content:
        if not isinstance(content, (Image, Video)) or not isinstance(content.source, str) or not _is_url(content):
            return content
        kind = video.kind(self.policy) if isinstance(content, Video) else media.kind(self.policy)
        async with self._fetches:
            with self._metrics.stage("fetch"):
                body = await fetched(content.source, self.policy, kind)
        return replace(content, source=body)


async def _each(contents: Sequence[Content], work: Callable[[Content], Awaitable[Content]]) -> tuple[Content, ...]:
    """Work on all at once; the first error stops the others."""
    tasks = [asyncio.ensure_future(work(content)) for content in contents]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _is_url(content: Content) -> bool:
    return isinstance(content, (Image, Video)) and is_url(content.source)
