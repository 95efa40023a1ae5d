"""What an item's vector depends on, as one hash: equal keys mean equal vectors from the same model."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

from mllm_embed.types import DENSE, Content, Document, EmbedInput, Image, Region, RunLengths, Text, Video
from mllm_embed_serving.schemas.common import EmbeddingRequest

_LONG = 2**18
"""Bytes of content from which hashing leaves the event loop for a thread."""


async def item_key(item: EmbedInput, wanted: EmbeddingRequest, scope: str) -> bytes:
    """Return the hash of an item and of everything in its request that decides its vector and its other outputs.

    Pictures and videos count as they were sent (their encoded bytes), so that nothing has to be decoded for it. The
    task's own instruction and side are fixed by their names in one version of the library.

    Args:
        item: one item, its URLs fetched.
        wanted: how to embed it.
        scope: whose it is.

    Returns:
        SHA-256, 32 bytes.
    """
    parts = [_bytes(content) for content in item.content]
    if sum(map(len, parts)) < _LONG:
        return _hash(parts, item, wanted, scope)
    return await asyncio.to_thread(_hash, parts, item, wanted, scope)


def _hash(parts: list[bytes], item: EmbedInput, wanted: EmbeddingRequest, scope: str) -> bytes:
    """Hash a head that says how long each part is, then the parts, so that no two items read alike."""
    kinds = [_kind(content) for content in item.content]
    instruction = wanted.instruction if item.instruction is None else item.instruction
    asked: list[Any] = [instruction, wanted.dimensions, wanted.truncate, wanted.windows]
    if instruction is None:
        asked += [wanted.task, wanted.role]
    if wanted.by_page:
        asked.append("by page")
    if wanted.outputs != DENSE:
        asked += [wanted.outputs.multivector, wanted.outputs.lexical]
    head = json.dumps([scope, asked, kinds, [len(part) for part in parts]]).encode("ascii")
    digest = hashlib.sha256(len(head).to_bytes(8) + head)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _kind(content: Content) -> list[Any]:
    """Return what decides how the bytes are read."""
    if isinstance(content, Text):
        return ["text"]
    if isinstance(content, Video):
        return ["video", content.frames, content.fps]
    if isinstance(content, Document):
        return ["document", content.numbers, content.dpi]
    if isinstance(content, Image):
        return ["image"] if content.region is None else ["image", *_region(content.region)]
    raise TypeError(f"a request holds texts, pictures, videos and documents, not {type(content).__name__}")


def _region(region: Region) -> list[Any]:
    """Return numbers and strings that differ for every region."""
    if isinstance(region.mask, RunLengths):
        return ["runs", region.mask.size, region.mask.counts]
    return [region.point, region.box, region.mask if region.mask is None else _source(region.mask).decode("ascii")]


def _bytes(content: Content) -> bytes:
    return content.text.encode() if isinstance(content, Text) else _source(content.source)


def _source(source: object) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str):  # a data URI; what it says about itself before the comma is ignored
        return source.partition(",")[2].encode()
    raise TypeError(f"a request holds bytes and strings, not {type(source).__name__}")
