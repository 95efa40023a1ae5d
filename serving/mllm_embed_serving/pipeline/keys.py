"""What an item's vector depends on, as one hash: equal keys mean equal vectors from the same model."""

from __future__ import annotations

import asyncio
import hashlib
import json

from mllm_embed.types import Content, EmbedInput, Image, Text
from mllm_embed_serving.schemas.common import EmbeddingRequest

_LONG = 2**18
"""Bytes of content from which hashing leaves the event loop for a thread."""


async def item_key(item: EmbedInput, wanted: EmbeddingRequest, scope: str) -> bytes:
    """Return the hash of an item and of everything in its request that decides its vector.

    Pictures count as they were sent (their encoded bytes), so that nothing has to be decoded for it. The task's own
    instruction and side are fixed by their names in one version of the library.

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
    kinds = ["image" if isinstance(content, Image) else "text" for content in item.content]
    instruction = wanted.instruction if item.instruction is None else item.instruction
    asked = [instruction, wanted.dimensions, wanted.truncate]
    if instruction is None:
        asked += [wanted.task, wanted.role]
    head = json.dumps([scope, asked, kinds, [len(part) for part in parts]]).encode("ascii")
    digest = hashlib.sha256(len(head).to_bytes(8) + head)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _bytes(content: Content) -> bytes:
    if isinstance(content, Text):
        return content.text.encode()
    if not isinstance(content, Image):
        raise TypeError(f"a request holds texts and pictures, not a {type(content).__name__}")
    if isinstance(content.source, bytes):
        return content.source
    if isinstance(content.source, str):  # a data URI; what it says about itself before the comma is ignored
        return content.source.partition(",")[2].encode()
    raise TypeError(f"a request holds bytes and strings, not {type(content.source).__name__}")
