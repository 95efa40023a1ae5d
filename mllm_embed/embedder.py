"""The public facade: content -> media -> prompt -> backend -> finished vectors, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mllm_embed.audio import NO_AUDIO, AudioEncoder
from mllm_embed.backends import Backend, BackendName, load_backend
from mllm_embed.backends.loop_thread import LoopThread
from mllm_embed.media import MediaPolicy
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.preparation import Preparer
from mllm_embed.regions import DEFAULT_REGIONS, RegionEncoder
from mllm_embed.tasks import DEFAULT, Role, get_task
from mllm_embed.types import DENSE, Embedding, EmbedInput, Outputs, Text, Truncate, as_inputs
from mllm_embed.vectors import check_dimensions, finish
from mllm_embed.windows import Windows


class Embedder:
    """Turns texts, pictures and mixtures of both into unit vectors.

    Args:
        model_dir: the opened model directory.
        backend: a started engine for that model.
        policy: where media may come from and how large they may be; None takes the limits for local use.
        region_encoder: writes regions of pictures.
        audio_encoder: makes soft tokens of the features of recordings; the default refuses them.

    Attributes:
        model_dir: the opened model directory.
        backend: the engine.
        region_encoder: writes regions of pictures.
        name: the model's name.
        dimensions: full vector width.
    """

    def __init__(
        self,
        model_dir: ModelDir,
        backend: Backend,
        policy: MediaPolicy | None = None,
        region_encoder: RegionEncoder = DEFAULT_REGIONS,
        audio_encoder: AudioEncoder = NO_AUDIO,
    ) -> None:
        self.model_dir = model_dir
        self.backend = backend
        self.region_encoder = region_encoder
        self.name = model_dir.recipe.name
        self.dimensions = model_dir.recipe.dimensions
        allowed = policy if policy is not None else MediaPolicy.local()
        self._preparer = Preparer(model_dir, allowed, region_encoder, audio_encoder)
        self._loop: LoopThread | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        backend: BackendName = "auto",
        precision: str = "float32",
        policy: MediaPolicy | None = None,
        max_tokens: int | None = None,
        **engine_options: Any,
    ) -> Self:
        """Open a model and start an engine for it; blocks until the engine can take work.

        Args:
            name_or_path: a model directory, the built-in model's name, or a hub name.
            backend: `vllm`, `transformers`, `fake`, or `auto`: vLLM where it is installed, else transformers.
            precision: `float32`, `bfloat16`, `float16` or `4bit`.
            policy: media limits.
            max_tokens: lowers the model's own limit, to save the engine's memory.
            engine_options: further keyword arguments of the engine.

        Raises:
            ModelError: there is no such model, or it cannot be used.
            BackendUnavailable: the engine is not installed or does not start.
        """
        model_dir = open_model_dir(name_or_path)
        if max_tokens is not None:
            recipe = replace(model_dir.recipe, max_tokens=min(max_tokens, model_dir.recipe.max_tokens))
            model_dir = replace(model_dir, recipe=recipe)
        return cls(model_dir, load_backend(backend, model_dir, precision=precision, **engine_options), policy)

    async def aembed(
        self,
        inputs: Sequence[EmbedInput],
        *,
        task: str = DEFAULT,
        role: Role = "query",
        instruction: str | None = None,
        dimensions: int | None = None,
        truncate: Truncate = "none",
        outputs: Outputs = DENSE,
    ) -> list[Embedding]:
        """Embed inputs, in order, from any event loop.

        Args:
            inputs: the inputs; one's own instruction wins over `instruction`, which wins over the task's.
            task: a built-in task, see `mllm_embed.tasks`.
            role: side of the task: `query` or `target`.
            instruction: free instruction for all inputs.
            dimensions: width to cut to; None keeps the full width.
            truncate: cut the text of inputs longer than the model takes at its `start` or `end`; pictures, instruction
                and closing tokens stay. `none` refuses such inputs.
            outputs: what is wanted besides the dense vector, from the same forward pass.

        Returns:
            float32 unit vectors with their token counts, and the other outputs.

        Raises:
            InputError: an input cannot be embedded; its `index` says which. Nothing is sent to the engine then.
            BackendError: the engine is down or full.
        """
        width = check_dimensions(dimensions, self.dimensions, self.model_dir.recipe.matryoshka_dimensions)
        default = instruction if instruction is not None else get_task(task).instruction(role)
        prompts = await self._preparer.prepare(inputs, default, truncate, outputs)
        raw = await self.backend.embed(prompts)
        return [
            replace(
                one,
                vector=finish(one.vector, width),
                multivector=None if one.multivector is None else finish(one.multivector, width),
                pixels=sum(image.width * image.height for image in prompt.images),
                frame_times=prompt.frame_times,
            )
            for one, prompt in zip(raw, prompts, strict=True)
        ]

    def embed(
        self,
        items: Sequence[Any],
        *,
        task: str = DEFAULT,
        role: Role = "query",
        instruction: str | None = None,
        dimensions: int | None = None,
        truncate: Truncate = "none",
    ) -> NDArray[np.float32]:
        """Embed strings, media, paths, PIL images, tuples of these (one interleaved input each) or `EmbedInput`s.

        The other arguments and the errors are those of `aembed`. Blocks, so not for use inside an event loop.

        Returns:
            float32 unit vectors, shape [N, D].
        """
        options: dict[str, Any] = {"task": task, "role": role, "instruction": instruction, "dimensions": dimensions}
        embeddings = self.embed_outputs(items, DENSE, truncate=truncate, **options)
        if not embeddings:
            return np.zeros((0, dimensions or self.dimensions), dtype=np.float32)
        return np.stack([embedding.vector for embedding in embeddings])

    def embed_outputs(self, items: Sequence[Any], outputs: Outputs, **options: Any) -> list[Embedding]:
        """Like `embed`, with other outputs of the same forward pass beside the vectors.

        Args:
            items: as for `embed`.
            outputs: which; the dense vector is always there.
            options: the other arguments of `aembed`.
        """
        return self._own_loop().run(self.aembed(as_inputs(items), outputs=outputs, **options))

    def windows(
        self,
        text: str,
        how: Windows = Windows(),  # noqa: B008  # frozen
        *,
        task: str = DEFAULT,
        role: Role = "query",
        instruction: str | None = None,
    ) -> list[Text]:
        """Cut a text into windows that the model can read; `long_inputs.embed_text` embeds them.

        Args:
            text: of any length; one that fits into a window stays whole.
            how: size and overlap in the model's own tokens, and a title for every window.
            task: under which the windows will be embedded.
            role: side of the task.
            instruction: instead of the task's.

        Raises:
            InvalidInput: the text is empty, or windows have no room for more than title and overlap.
        """
        default = instruction if instruction is not None else get_task(task).instruction(role)
        return self._preparer.windows(text, how, default)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of the model's own token ids, for callers that have ids instead of text.

        Raises:
            InvalidInput: an id outside the vocabulary, or the id of a control token.
        """
        return self._preparer.decode(token_ids)

    def check_health(self) -> None:
        """Raise `BackendUnavailable` if the engine cannot take work now."""
        self.backend.check_health()

    async def aclose(self) -> None:
        """Stop the engine; calling it twice is harmless."""
        await self.backend.aclose()
        if self._loop is not None:
            await asyncio.to_thread(self._loop.stop)

    def close(self) -> None:
        """Stop the engine, from a script; calling it twice is harmless."""
        loop = self._own_loop()
        loop.run(self.backend.aclose())
        loop.stop()

    def _own_loop(self) -> LoopThread:
        if self._loop is None or not self._loop.alive:
            self._loop = LoopThread("mllm-embed")
        return self._loop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
