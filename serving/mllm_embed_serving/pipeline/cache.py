"""Results by the hash of what was asked: in memory within a budget of bytes, and on disk if the operator wants.

A result is what the engine returned the first time, bit for bit. Keys hold the caller and the model's fingerprint, so
neither another caller nor another model finds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Protocol

import numpy as np
from cachetools import LRUCache

from mllm_embed.types import Embedding
from mllm_embed_serving.metrics import Metrics

_OVERHEAD = 400
"""Bytes that an entry takes beside its vector: key, objects, the order of use. Measured with tracemalloc."""


_LAYOUT = "2"
"""How results are written on disk; those of another layout are not found."""


class Store(Protocol):
    """A slower place for results. Its methods block."""

    def get(self, key: bytes) -> bytes | None:
        """Return what was put under a key, if it is still there."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value."""
        ...


class ResultCache:
    """Finished vectors.

    Args:
        variant: what decides a vector besides the request: the model's fingerprint, the engine, its precision.
        max_bytes: memory that entries may take together; 0 keeps none.
        store: a slower place that is asked where memory has nothing.
        metrics: counts hits and misses.
    """

    def __init__(self, variant: str, max_bytes: int, store: Store | None, metrics: Metrics) -> None:
        self._variant = hashlib.sha256(f"{_LAYOUT}/{variant}".encode()).digest()
        self._memory: LRUCache[bytes, Embedding] = LRUCache(max_bytes, getsizeof=_size)
        self._store = store
        self._metrics = metrics

    async def get(self, key: bytes) -> Embedding | None:
        """Return the result under a key, if it is known."""
        if (found := self._memory.get(key)) is not None:
            self._metrics.cache_hits.labels("memory").inc()
            return found
        if self._store is not None:
            value = await asyncio.to_thread(self._store.get, self._stored_key(key))
            if value is not None:
                found = _unpack(value)
                self._keep(key, found)
                self._metrics.cache_hits.labels("disk").inc()
                return found
        self._metrics.cache_misses.inc()
        return None

    async def put(self, key: bytes, embedding: Embedding) -> None:
        """Keep a result; the least recently used ones make room."""
        embedding.vector.flags.writeable = False  # it is handed to many
        self._keep(key, embedding)
        if self._store is not None:
            await asyncio.to_thread(self._store.put, self._stored_key(key), _pack(embedding))

    def _keep(self, key: bytes, embedding: Embedding) -> None:
        if _size(embedding) <= self._memory.maxsize:
            self._memory[key] = embedding
            self._metrics.cache_bytes.set(self._memory.currsize)

    def _stored_key(self, key: bytes) -> bytes:
        return hashlib.sha256(self._variant + key).digest()


def _size(embedding: Embedding) -> int:
    return embedding.vector.nbytes + _OVERHEAD


def _pack(embedding: Embedding) -> bytes:
    """Write what is known beside the vector as JSON, with its length before it, then the vector."""
    head = json.dumps([embedding.tokens, embedding.pixels, embedding.frame_times]).encode("ascii")
    return len(head).to_bytes(8) + head + embedding.vector.astype("<f4").tobytes()


def _unpack(value: bytes) -> Embedding:
    end = 8 + int.from_bytes(value[:8])
    tokens, pixels, times = json.loads(value[8:end])
    vector = np.frombuffer(value, dtype="<f4", offset=end).astype(np.float32)
    vector.flags.writeable = False
    return Embedding(vector, tokens, pixels, tuple(map(tuple, times)))
