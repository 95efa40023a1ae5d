"""Media of a request: fetched and decoded in the server's own bounded pool, never by the engine's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import PIL.Image

from mllm_embed import documents, media, video
from mllm_embed.errors import InvalidInput, MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.sources import Kind, fetched, is_url
from mllm_embed.types import Content, Document, EmbedInput, Image, Page, Video
from mllm_embed_serving.metrics import Metrics

CONCURRENT_FETCHES = 64
"""URLs that are fetched at once, over all requests."""
_FETCHED = (Image, Video, Document)
_FETCHED_AS: dict[type[Content], Callable[[MediaPolicy], Kind]] = {
    Image: media.kind,
    Video: video.kind,
    Document: documents.kind,
}
_DECODED = (Image, Video, Page)


class PictureBudget:
    """Counts the pictures of one request and their pixels; once either is spent, no further one of it is decoded.

    Args:
        max_pixels: of all pictures together; None is no limit.
        max_images: pictures.
        images: as many are known from the start.
    """

    def __init__(self, max_pixels: int | None, max_images: int, images: int) -> None:
        self._max_pixels = max_pixels
        self._max_images = max_images
        self._pixels = 0
        self._images = images

    def spend(self, pixels: int) -> None:
        """Count decoded pixels.

        Raises:
            MediaTooLarge: together they are more than the limit.
        """
        self._pixels += pixels
        if self._max_pixels is not None and self._pixels > self._max_pixels:
            raise MediaTooLarge(f"the images of a request may have at most {self._max_pixels:,} pixels together")

    def add(self, images: int) -> None:
        """Count pictures that come to light.

        Raises:
            InvalidInput: together they are more than the limit.
        """
        self._images += images
        if self._images > self._max_images:
            raise InvalidInput(
                f"a request may hold at most {self._max_images} images, pages of documents among them, "
                f"but holds {self._images} or more: name the pages that are to be read"
            )


class Pictures:
    """Loads pictures, videos and documents under one policy, and measures how long that takes.

    Args:
        policy: where pictures may come from and how large they may be.
        metrics: takes the times of the stages `fetch` and `decode`.
        max_images: most pictures of one request.

    Attributes:
        policy: see above.
    """

    def __init__(self, policy: MediaPolicy, metrics: Metrics, *, max_images: int) -> None:
        self.policy = policy
        self._max_images = max_images
        self._metrics = metrics
        self._fetches = asyncio.Semaphore(CONCURRENT_FETCHES)

    def budget(self, images: int) -> PictureBudget:
        """Return the budget of one request, of whose pictures so many are known."""
        return PictureBudget(self.policy.max_total_pixels, self._max_images, images)

    async def fetched(self, item: EmbedInput) -> EmbedInput:
        """Return the item with the bytes of its media in place of their URLs; other media stay as they are.

        Raises:
            InputError: URLs are not allowed, or one does not deliver.
        """
        if not any(_is_url(content) for content in item.content):
            return item
        return replace(item, content=await _each(item.content, self._fetch))

    async def opened(self, item: EmbedInput, budget: PictureBudget) -> EmbedInput:
        """Return the item with the pages of its documents in their place, none of them drawn yet.

        Raises:
            InputError: bytes that are no document, or too many pages, or pages that it does not have.
        """
        if not any(isinstance(content, Document) for content in item.content):
            return item
        parts = await documents.opened(item.content, self.policy)
        counted = sum(content.pictures if isinstance(content, Document) else 1 for content in item.content)
        budget.add(len(parts) - counted)
        return replace(item, content=tuple(parts))

    async def decoded(self, item: EmbedInput, budget: PictureBudget) -> EmbedInput:
        """Return the item with decoded pictures and pages, and videos as the frames that are used.

        Raises:
            InputError: bytes that are no picture or video, or too large, or more pixels than the budget has left.
        """
        if not any(isinstance(content, _DECODED) for content in item.content):
            return item

        async def decode(content: Content) -> Content:
            if not isinstance(content, _DECODED):
                return content
            budget.spend(0)
            with self._metrics.stage("decode"):
                decoded, pictures = await self._decode(content)
            budget.spend(sum(picture.width * picture.height for picture in pictures))
            return decoded

        return replace(item, content=await _each(item.content, decode))

    async def _decode(self, content: Image | Video | Page) -> tuple[Content, Sequence[PIL.Image.Image]]:
        if isinstance(content, Page):
            drawn = await documents.load(content, self.policy)
            return Image(drawn), (drawn,)
        if isinstance(content, Video):
            clip = await video.load(content, self.policy)
            return Video(clip.frames, len(clip.frames), times=clip.times), clip.frames
        picture = await media.load(content, self.policy)
        picture.info.clear()  # it is upright now: whoever read its EXIF orientation again would turn it again
        return replace(content, source=picture), (picture,)

    async def _fetch(self, content: Content) -> Content:
        if not isinstance(content, _FETCHED) or not isinstance(content.source, str) or not _is_url(content):
            return content
        kind = _FETCHED_AS[type(content)](self.policy)
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
    return isinstance(content, _FETCHED) and is_url(content.source)
