"""The contract between the library and an engine. An implementation sees only this file, `types` and `errors`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mllm_embed.types import Embedding, RenderedPrompt

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir

MAX_IMAGES = 16
"""Most pictures in one prompt: engines reserve room for as many."""


class Backend(Protocol):
    """An engine that turns rendered prompts into pooled vectors.

    It batches on its own: callers send what they have, concurrently, from any event loop, and must not wait for each
    other.
    """

    name: str
    """What the engine is called in logs and model cards: `vllm`, `transformers`, `fake`."""

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one full-width vector per prompt, in order; need not be normalised.

        Cancelling the call abandons its prompts.

        Raises:
            BackendUnavailable: the engine is not up any more.
            Overloaded: its queue is full.
        """
        ...

    def check_health(self) -> None:
        """Return if the engine can take work now.

        Raises:
            BackendUnavailable: it cannot, with the reason.
        """
        ...

    async def aclose(self) -> None:
        """Stop the engine and free what it holds; calling it twice is harmless."""
        ...


@runtime_checkable
class RunsAdapters(Protocol):
    """An engine that takes LoRA adapters on and off while it runs."""

    async def with_adapter(self, model_dir: ModelDir) -> Backend:
        """Return the engine as seen through an adapter; closing that unloads it, once nothing is under way in it.

        Raises `IncompatibleCheckpoint` if the adapter does not fit, or changes nothing.
        """
        ...
