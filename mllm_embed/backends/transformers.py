"""Plain transformers behind the asynchronous contract: one worker thread, dynamic batching.

The worker takes what is waiting, oldest first, looks ahead a little, sorts by length so that little is padded, and
runs batches of at most `batch_tokens` padded tokens. Padding never changes a vector beyond rounding: rows are padded on
the right, under a causal mask, and pooled at their last real token.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import BackendError, BackendUnavailable, IncompatibleCheckpoint, Overloaded
from mllm_embed.types import Embedding, RenderedPrompt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mllm_embed.adapters import AdapterRoom
    from mllm_embed.backends.base import Backend
    from mllm_embed.lexical import WordTable
    from mllm_embed.model_dir import ModelDir
    from mllm_embed.modeling.adapters import LoadedAdapters
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
    cost: int
    """What it takes in a batch: these, and what cross attention looks at."""
    adapter: str | None
    """The LoRA adapter that it is run through, by the name that PEFT knows it by."""
    future: Future[Embedding] = field(default_factory=Future)


class TransformersBackend:
    """A loaded model and the thread that runs it.

    Args:
        adapters: the model, and the LoRA adapters that are run on it.
        builder: makes the model's inputs.
        words: what its language-model head speaks of.
        device: torch device of the model.
        batch_tokens: padded tokens per forward pass; a single longer prompt runs alone.
        max_waiting: prompts that may wait; more are refused.
    """

    name = "transformers"

    def __init__(
        self,
        adapters: LoadedAdapters,
        builder: InputBuilder,
        words: WordTable,
        *,
        device: str,
        batch_tokens: int,
        max_waiting: int,
    ) -> None:
        self._builder = builder
        self._words = words
        self._device = device
        self._batch_tokens = batch_tokens
        self._max_waiting = max_waiting
        self._adapters = adapters
        self._waiting: deque[_Job] = deque()
        self._numbers = itertools.count()
        self._errands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="mllm-embed-transformers", daemon=True)
        self._thread.start()

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one full-width vector per prompt; see `Backend.embed`."""
        return await self.embed_through(None, prompts)

    async def embed_through(self, adapter: str | None, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Like `embed`, through a loaded adapter; None is the model's own, if it has one."""
        jobs = [_Job(prompt, self._builder.length(prompt), self._builder.cost(prompt), adapter) for prompt in prompts]
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

    async def with_adapter(self, model_dir: ModelDir) -> Backend:
        """Load a LoRA adapter beside those that are; see `RunsAdapters.with_adapter`."""
        if model_dir.adapter is None:
            raise IncompatibleCheckpoint(f"{model_dir.path} holds no adapter")
        name, folder = f"adapter{next(self._numbers)}", model_dir.adapter
        await self._run_errand(lambda: self._adapters.add(name, folder))
        return _Adapter(self, name)

    async def without_adapter(self, name: str) -> None:
        """Unload an adapter; an engine that is closed has none."""
        with contextlib.suppress(BackendUnavailable):
            await self._run_errand(lambda: self._adapters.remove(name))

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

    async def _run_errand(self, errand: Callable[[], None]) -> None:
        """Let the worker do something between two batches: nobody else may touch the model."""
        done: Future[None] = Future()
        with self._changed:
            self.check_health()
            self._errands.append((errand, done))
            self._changed.notify()
        await asyncio.shield(asyncio.wrap_future(done))

    def _run_errands(self) -> None:
        while self._errands:
            errand, done = self._errands.popleft()
            try:
                errand()
            except Exception as error:  # noqa: BLE001  # whatever it is, its caller must hear of it
                done.set_exception(error)
            else:
                done.set_result(None)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._run_errands()
            if not batch:
                continue
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
        for _, done in self._errands:
            done.set_exception(BackendUnavailable("the transformers backend has been closed"))
        for job in self._waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(BackendUnavailable("the transformers backend has been closed"))

    def _next_batch(self) -> list[_Job] | None:
        """Wait for work and claim one batch, none where only errands wait; None means that the backend was closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting) or bool(self._errands))
                if self._closed:
                    return None
                if self._errands:
                    return []
                if batch := self._claim():
                    return batch

    def _claim(self) -> list[_Job]:
        """Take the oldest prompt and those nearest to it in cost, as many as the token budget allows.

        All of a batch go through one adapter.
        """
        while self._waiting and self._waiting[0].future.cancelled():
            self._waiting.popleft()
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        equal = [job for job in list(self._waiting)[:_LOOK_AHEAD] if job.adapter == oldest.adapter]
        near = sorted(equal, key=lambda job: abs(job.cost - oldest.cost))
        chosen: list[_Job] = []
        dearest = 0
        for job in near:
            dearest = max(dearest, job.cost)
            if chosen and dearest * (len(chosen) + 1) > self._batch_tokens:
                break
            chosen.append(job)
        taken = {id(job) for job in chosen}
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        # From here on a prompt can no longer be cancelled, so its result can be set without a race.
        return [job for job in chosen if job.future.set_running_or_notify_cancel()]

    def _run(self, batch: Sequence[_Job]) -> list[Embedding]:
        import torch

        from mllm_embed.modeling.encode import pool, token_states
        from mllm_embed.modeling.pooling import last_token

        inputs = self._builder.build([job.prompt for job in batch])
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        with torch.inference_mode(), self._adapters.using(batch[0].adapter) as model:
            hidden = token_states(model, inputs)
            vectors = pool(hidden, inputs).float().cpu().numpy()  # [B, D]
            lexical = self._lexical(batch, model, last_token(hidden, inputs["attention_mask"]))
        return [
            Embedding(vectors[row], job.length, multivector=_own_states(hidden[row], job), lexical=lexical.get(row))
            for row, job in enumerate(batch)
        ]

    def _lexical(self, batch: Sequence[_Job], model: nn.Module, last: Tensor) -> dict[int, dict[str, float]]:
        """Return the words of those rows that want them, from the states of their last tokens, shape [B, D]."""
        from mllm_embed.modeling.loading import language_head

        rows = [row for row, job in enumerate(batch) if job.prompt.words]
        if not rows:
            return {}
        logits = language_head(model)(last[rows]).float().cpu().numpy()  # [rows, V]
        wanted = (batch[row].prompt.words for row in rows)
        return {row: self._words.weigh(*each) for row, *each in zip(rows, logits, wanted, strict=True)}


def _own_states(hidden: Tensor, job: _Job) -> NDArray[np.float32] | None:
    """Return the states of the input's own tokens, shape [T, D], from those of its padded row; None if not wanted."""
    if job.prompt.content is None:
        return None
    states = hidden[: job.length].float().cpu().numpy()
    return np.asarray(states[np.asarray(job.prompt.content)])


class _Adapter:
    """The backend as seen through one adapter."""

    name = TransformersBackend.name

    def __init__(self, backend: TransformersBackend, adapter: str) -> None:
        self._backend = backend
        self._adapter = adapter

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        return await self._backend.embed_through(self._adapter, prompts)

    def check_health(self) -> None:
        self._backend.check_health()

    async def aclose(self) -> None:
        await self._backend.without_adapter(self._adapter)


def start(
    model_dir: ModelDir,
    *,
    precision: Precision = "float32",
    attention: AttentionKernel = "sdpa",
    device: str = "auto",
    batch_tokens: int = 4096,
    max_waiting: int = 4096,
    adapters: AdapterRoom | None = None,  # noqa: ARG001  # an engine that must be told before it starts takes it
) -> TransformersBackend:
    """Load a model directory.

    Args:
        model_dir: the opened model directory.
        precision: `float32`, `bfloat16`, `float16`, or `4bit` (bitsandbytes NF4).
        attention: `sdpa`, `eager`, or `flash_attention_2` (needs the package flash-attn and a GPU).
        device: a torch device, or `auto`: the GPU if there is one.
        batch_tokens: padded tokens per forward pass.
        max_waiting: prompts that may wait; more are refused.
        adapters: not needed here: any adapter can be attached while the engine runs.

    Raises:
        BackendUnavailable: a package for the chosen precision or attention is not installed.
        IncompatibleCheckpoint: weights or adapter do not fit.
    """
    import torch

    from mllm_embed.lexical import WordTable
    from mllm_embed.modeling.adapters import LoadedAdapters
    from mllm_embed.modeling.inputs import InputBuilder
    from mllm_embed.modeling.loading import load_model
    from mllm_embed.prompts import PromptRenderer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(model_dir, precision=precision, attention=attention, device=device)
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    options: dict[str, Any] = {"device": device, "batch_tokens": batch_tokens, "max_waiting": max_waiting}
    builder = InputBuilder(model_dir, renderer.image_token_id)
    return TransformersBackend(LoadedAdapters(model), builder, WordTable(model_dir.tokenizer_file), **options)
