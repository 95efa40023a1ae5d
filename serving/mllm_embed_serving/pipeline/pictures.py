"""The pictures of a request: fetched and decoded in the server's own bounded pool, never by the engine's thread."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from mllm_embed import media
from mllm_embed.errors import MediaNotAllowed, MediaTooLarge
from mllm_embed.fetch import fetch
from mllm_embed.media import MediaPolicy
from mllm_embed.types import Content, EmbedInput, Image
from mllm_embed_serving.metrics import Metrics

CONCURRENT_FETCHES = 64
"""URLs that are fetched at once, over all requests."""
_URL = re.compile(r"https?://", re.IGNORECASE)


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
    """Loads pictures under one policy, and measures how long that takes.

    Args:
        policy: where pictures may come from and how large they may be.
        metrics: takes the times of the stages `fetch` and `decode`.
    """

    def __init__(self, policy: MediaPolicy, metrics: Metrics) -> None:
        self._policy = policy
        self._metrics = metrics
        self._fetches = asyncio.Semaphore(CONCURRENT_FETCHES)

    def budget(self) -> PixelBudget:
        """Return the pixel budget of one request."""
        return PixelBudget(self._policy.max_total_pixels)

    async def fetched(self, item: EmbedInput) -> EmbedInput:
        """Return the item with the bytes of its pictures in place of their URLs; other pictures stay as they are.

        Raises:
            InputError: URLs are not allowed, or one does not deliver.
        """
        if not any(_is_url(content) for content in item.content):
            return item
        return replace(item, content=await _each(item.content, self._fetch))

    async def decoded(self, item: EmbedInput, budget: PixelBudget) -> EmbedInput:
        """Return the item with decoded pictures.

        Raises:
            InputError: bytes that are no picture, or too large, or more pixels than the budget has left.
        """
        if not any(isinstance(content, Image) for content in item.content):
            return item

        async def decode(content: Content) -> Content:
            if not isinstance(content, Image):
                return content
            budget.spend(0)
            with self._metrics.stage("decode"):
                picture = await media.load(content, self._policy)
            budget.spend(picture.width * picture.height)
            picture.info.clear()  # it is upright now: whoever read its EXIF orientation again would turn it again
            return Image(picture)

        return replace(item, content=await _each(item.content, decode))

    async def _fetch(self, content: Content) -> Content:
        if not isinstance(content, Image) or not _is_url(content):
            return content
        if not self._policy.allow_urls:
            raise MediaNotAllowed("image URLs are not allowed here: send the picture as a data URI")
        async with self._fetches:
            with self._metrics.stage("fetch"):
                body = await fetch(
                    str(content.source),
                    max_bytes=self._policy.max_bytes,
                    timeout_s=self._policy.timeout_s,
                    max_redirects=self._policy.max_redirects,
                    allow_private_addresses=self._policy.allow_private_addresses,
                )
        return Image(body)


async def _each(contents: Sequence[Content], work: Callable[[Content], Awaitable[Content]]) -> tuple[Content, ...]:
    """Work on all at once; the first error stops the others."""
    tasks = [asyncio.ensure_future(work(content)) for content in contents]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _is_url(content: Content) -> bool:
    return isinstance(content, Image) and isinstance(content.source, str) and _URL.match(content.source) is not None
