"""The engine as seen from outside: how long it takes, how much it is given, and how long rendering took before it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar

from mllm_embed.backends import Backend
from mllm_embed.types import Embedding, RenderedPrompt
from mllm_embed_serving.metrics import Metrics

RENDERING: ContextVar[float | None] = ContextVar("RENDERING", default=None)
"""When the item of the current task was handed to the embedder, in seconds of `time.perf_counter`."""


class MeasuredBackend:
    """Passes everything on to an engine, and measures.

    Args:
        engine: does the work.
        metrics: takes the times of the stages `render` and `engine`, and the number of prompts.

    Attributes:
        name: what the engine is called.
    """

    def __init__(self, engine: Backend, metrics: Metrics) -> None:
        self.name = engine.name
        self._engine = engine
        self._metrics = metrics

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one vector per prompt; see `Backend.embed`."""
        if (since := RENDERING.get()) is not None:
            self._metrics.stages.labels("render").observe(time.perf_counter() - since)
        self._metrics.in_engine += len(prompts)
        self._metrics.engine_prompts.observe(self._metrics.in_engine)
        try:
            with self._metrics.stage("engine"):
                return await self._engine.embed(prompts)
        finally:
            self._metrics.in_engine -= len(prompts)

    def check_health(self) -> None:
        """Raise `BackendUnavailable` if the engine cannot take work now."""
        self._engine.check_health()

    async def aclose(self) -> None:
        """Stop the engine."""
        await self._engine.aclose()
