"""Plain transformers behind the asynchronous contract: one worker thread, dynamic batching.

The worker takes what is waiting, oldest first, looks ahead a little, sorts by length so that little is padded, and
runs batches of at most `batch_tokens` padded tokens. Padding never changes a vector beyond rounding: rows are padded on
the right, under a causal mask, and pooled at their last real token.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mllm_embed.errors import BackendError, BackendUnavailable, Overloaded
from mllm_embed.types import Embedding, RenderedPrompt

if TYPE_CHECKING:
    from torch import nn

    from mllm_embed.model_dir import ModelDir
    from mllm_embed.modeling.inputs import InputBuilder
    from mllm_embed.modeling.loading import AttentionKernel, Precision

_LOG = logging.getLogger(__name__)
_LOOK_AHEAD = 256
"""Waiting prompts among which those of similar length are brought together."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A waiting prompt."""

    prompt: RenderedPrompt
    length: int
    """Tokens, visual tokens included."""
    future: Future[Embedding] = field(default_factory=Future)


class TransformersBackend:
    """A loaded model and the thread that runs it.

    Args:
        model: from `modeling.loading.load_model`.
        builder: makes the model's inputs.
        device: torch device of the model.
        batch_tokens: padded tokens per forward pass; a single longer prompt runs alone.
        max_waiting: prompts that may wait; more are refused.
    """

    name = "transformers"

    def __init__(
        self,
        model: nn.Module,
        builder: InputBuilder,
        *,
        device: str,
        batch_tokens: int,
        max_waiting: int,
    ) -> None:
        self._model = model
        self._builder = builder
        self._device = device
        self._batch_tokens = batch_tokens
        self._max_waiting = max_waiting
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="mllm-embed-transformers", daemon=True)
        self._thread.start()

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one full-width vector per prompt; see `Backend.embed`."""
        jobs = [_Job(prompt, self._builder.length(prompt)) for prompt in prompts]
        with self._changed:
            self.check_health()
            if self._waiting and len(self._waiting) + len(jobs) > self._max_waiting:
                raise Overloaded(f"{len(self._waiting)} prompts are waiting, and at most {self._max_waiting} may")
            self._waiting.extend(jobs)
            self._changed.notify()
        try:
            return list(await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs)))
        finally:  # whoever is cancelled, or loses one prompt to an error, abandons the rest
            for job in jobs:
                job.future.cancel()

    def check_health(self) -> None:
        """Raise `BackendUnavailable` if the backend was closed or its thread has ended."""
        if self._closed or not self._thread.is_alive():
            raise BackendUnavailable("the transformers backend has been closed")

    async def aclose(self) -> None:
        """Finish the batch under way, fail what waits, end the thread; calling it twice is harmless."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while batch := self._next_batch():
            try:
                embeddings = self._run(batch)
            except Exception as error:  # noqa: BLE001  # whatever it is, its callers must hear of it
                _LOG.exception("a batch of %d prompts failed", len(batch))
                failure = BackendError(f"the model failed on a batch of {len(batch)} prompts: {error}")
                failure.__cause__ = error
                for job in batch:
                    job.future.set_exception(failure)
            else:
                for job, embedding in zip(batch, embeddings, strict=True):
                    job.future.set_result(embedding)
        for job in self._waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(BackendUnavailable("the transformers backend has been closed"))

    def _next_batch(self) -> list[_Job]:
        """Wait for work and claim one batch; an empty one means that the backend was closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return []
                if batch := self._claim():
                    return batch

    def _claim(self) -> list[_Job]:
        """Take the oldest prompt and those nearest to it in length, as many as the token budget allows."""
        while self._waiting and self._waiting[0].future.cancelled():
            self._waiting.popleft()
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        near = sorted(list(self._waiting)[:_LOOK_AHEAD], key=lambda job: abs(job.length - oldest.length))
        chosen: list[_Job] = []
        longest = 0
        for job in near:
            longest = max(longest, job.length)
            if chosen and longest * (len(chosen) + 1) > self._batch_tokens:
                break
            chosen.append(job)
        taken = {id(job) for job in chosen}
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        # From here on a prompt can no longer be cancelled, so its result can be set without a race.
        return [job for job in chosen if job.future.set_running_or_notify_cancel()]

    def _run(self, batch: Sequence[_Job]) -> list[Embedding]:
        import torch

        from mllm_embed.modeling.encode import encode

        inputs = self._builder.build([job.prompt for job in batch])
        with torch.inference_mode():
            pooled = encode(self._model, {name: tensor.to(self._device) for name, tensor in inputs.items()})
        vectors = pooled.float().cpu().numpy()  # [B, D]
        return [Embedding(vector, job.length) for vector, job in zip(vectors, batch, strict=True)]


def start(
    model_dir: ModelDir,
    *,
    precision: Precision = "float32",
    attention: AttentionKernel = "sdpa",
    device: str = "auto",
    batch_tokens: int = 4096,
    max_waiting: int = 4096,
) -> TransformersBackend:
    """Load a model directory.

    Args:
        model_dir: the opened model directory.
        precision: `float32`, `bfloat16`, `float16`, or `4bit` (bitsandbytes NF4).
        attention: `sdpa`, `eager`, or `flash_attention_2` (needs the package flash-attn and a GPU).
        device: a torch device, or `auto`: the GPU if there is one.
        batch_tokens: padded tokens per forward pass.
        max_waiting: prompts that may wait; more are refused.

    Raises:
        BackendUnavailable: a package for the chosen precision or attention is not installed.
        IncompatibleCheckpoint: weights or adapter do not fit.
    """
    import torch

    from mllm_embed.modeling.inputs import InputBuilder
    from mllm_embed.modeling.loading import load_model
    from mllm_embed.prompts import PromptRenderer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(model_dir, precision=precision, attention=attention, device=device)
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    options: dict[str, Any] = {"device": device, "batch_tokens": batch_tokens, "max_waiting": max_waiting}
    return TransformersBackend(model, InputBuilder(model_dir, renderer.image_token_id), **options)
