"""vLLM's asynchronous engine in our own process. The only file that knows vLLM's names.

The engine lives on an event loop of its own, so that its preprocessing never holds up callers, who may come from any
loop. Its worker processes are started by vLLM; what they need of us reaches them through the environment.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mllm_embed.backends.base import MAX_IMAGES
from mllm_embed.backends.loop_thread import LoopThread
from mllm_embed.backends.support import vllm_refusal
from mllm_embed.backends.vllm_outputs import OutputMaker
from mllm_embed.backends.vllm_settings import adapter_options, check_room, engine_environment, has_gpu, kv_bytes
from mllm_embed.errors import BackendError, BackendUnavailable, IncompatibleCheckpoint, InvalidInput, Overloaded
from mllm_embed.modeling import torch_compat
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import Embedding, EmbedInput, RenderedPrompt

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    from mllm_embed.adapters import AdapterRoom
    from mllm_embed.backends.base import Backend
    from mllm_embed.model_dir import ModelDir

_OWN_ADAPTER = 1
"""The number of the model's own adapter; each further one gets the next."""
_LOG = logging.getLogger(__name__)
_SHUTDOWN_S = 3.0
"""Seconds that the engine's processes get to end on their own."""


_Embed = Callable[[Sequence[RenderedPrompt]], Awaitable[list[Embedding]]]


class VllmBackend:
    """A started vLLM engine.

    Args:
        engine: the engine.
        loop: the event loop it lives on; closed with it.
        adapter: the model's own LoRA adapter, if any.
        outputs: makes what is wanted of the engine's states.
        room: what the engine was started with for adapters beside it.
        max_waiting: prompts that may be under way; more are refused.
        max_images: most pictures in one prompt.
    """

    name = "vllm"

    def __init__(
        self,
        engine: AsyncLLM,
        loop: LoopThread,
        adapter: LoRARequest | None,
        outputs: OutputMaker,
        *,
        room: AdapterRoom | None = None,
        max_waiting: int,
        max_images: int = MAX_IMAGES,
    ) -> None:
        self._engine = engine
        self._max_images = max_images
        self._loop = loop
        self._adapter = adapter
        self._outputs = outputs
        self._room = room
        self._max_waiting = max_waiting
        self._under_way = 0
        self._numbers = itertools.count()
        self._loaded = 0
        self._adapter_numbers = itertools.count(_OWN_ADAPTER + 1)
        self._closed = False
        atexit.register(self.stop)  # before multiprocessing's own exit handler, which ends processes noisily

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one full-width vector per prompt; see `Backend.embed`."""
        return await self._submit(prompts, self._adapter)

    async def embed_base(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return the vectors of the base model, as if there were no adapter."""
        return await self._submit(prompts, None)

    async def embed_through(self, adapter: LoRARequest, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return the vectors of the base model with an adapter that is loaded."""
        return await self._submit(prompts, adapter)

    async def with_adapter(self, model_dir: ModelDir) -> Backend:
        """Load a LoRA adapter beside those that are; see `RunsAdapters.with_adapter`."""
        if model_dir.adapter is None or self._room is None:
            raise IncompatibleCheckpoint(f"vLLM was started without room for adapters, or {model_dir.path} holds none")
        check_room(model_dir, self._room)
        if self._loaded >= self._room.slots:
            raise IncompatibleCheckpoint(f"vLLM was started with room for {self._room.slots} adapters, and has as many")
        # A name of its own for every load: vLLM finds the states of known prompts again by it.
        number = next(self._adapter_numbers)
        view = _Adapter(self, _lora_request(model_dir.adapter, number))
        self._loaded += 1
        try:
            await view.load()
            await _prove_effect(view.embed, self.embed_base, model_dir)
        except BaseException:
            await view.aclose()
            raise
        return view

    async def load(self, adapter: LoRARequest) -> None:
        """Load an adapter.

        Raises:
            IncompatibleCheckpoint: vLLM cannot use it.
        """
        self.check_health()
        try:
            await self._loop.arun(self._engine.add_lora(adapter))
        except Exception as error:  # vLLM raises many kinds; all mean that it does not fit
            self.check_health()
            reason = " ".join(str(error).split())[:200]
            raise IncompatibleCheckpoint(f"{adapter.lora_path}: vLLM cannot use the adapter: {reason}") from error

    async def unload(self, adapter: LoRARequest) -> None:
        """Free an adapter's place; an engine that is dead or closed has none."""
        self._loaded -= 1
        try:
            self.check_health()
            await self._loop.arun(self._engine.remove_lora(adapter.lora_int_id))
        except Exception as error:  # noqa: BLE001  # what an engine raises that dies meanwhile
            _LOG.info("an adapter was not unloaded: %s", error)

    def check_health(self) -> None:
        """Raise `BackendUnavailable` if the engine was closed or one of its processes has died."""
        if self._closed:
            raise BackendUnavailable("the vLLM engine has been closed")
        if self._engine.errored:
            raise BackendUnavailable("the vLLM engine has died; its log says why")

    async def aclose(self) -> None:
        """Stop the engine's processes and its loop; calling it twice is harmless."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Like `aclose`, from a thread without an event loop."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.stop)
        self._loop.run(_leave(self._engine))
        logging.getLogger("vllm.v1.utils").setLevel(logging.ERROR)  # its processes linger and have to be killed
        self._engine.shutdown(_SHUTDOWN_S)  # in this thread: while the interpreter ends there is no other
        self._loop.run(_close_sockets(self._engine))
        self._loop.stop()
        del self._engine
        gc.collect()  # it is part of a cycle, and its destructor fails once the interpreter ends

    async def _submit(self, prompts: Sequence[RenderedPrompt], adapter: LoRARequest | None) -> list[Embedding]:
        self.check_health()
        if self._under_way and self._under_way + len(prompts) > self._max_waiting:
            raise Overloaded(f"{self._under_way} prompts are under way, and at most {self._max_waiting} may be")
        self._under_way += len(prompts)
        try:
            return await self._loop.arun(self._gather(prompts, adapter))
        finally:
            self._under_way -= len(prompts)

    async def _gather(self, prompts: Sequence[RenderedPrompt], adapter: LoRARequest | None) -> list[Embedding]:
        """Run prompts concurrently; the first failure cancels the rest."""
        if len(prompts) == 1:
            return [await self._one(prompts[0], adapter, 0)]
        tasks = [asyncio.ensure_future(self._one(prompt, adapter, i)) for i, prompt in enumerate(prompts)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, prompt: RenderedPrompt, adapter: LoRARequest | None, index: int) -> Embedding:
        from vllm import PoolingParams
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        if len(prompt.images) > self._max_images:
            raise InvalidInput(
                f"vLLM reads at most {self._max_images} image in an input as this model's family does, but there are "
                f"{len(prompt.images)}; the transformers backend takes them",
                index=index,
            )
        if prompt.soft is not None:
            raise InvalidInput(
                "vLLM reads token ids and pictures, not soft tokens; the transformers backend does", index=index
            )
        # Never normalised in the engine: so the dense vector has the same bits whatever else is wanted with it.
        task: Literal["embed", "token_embed"] = "embed" if prompt.content is None else "token_embed"
        params = PoolingParams(task=task, use_activation=False)
        output: Any = None
        try:
            rendered = await self._rendered(prompt)
            number = f"mllm-embed-{next(self._numbers)}"
            async for result in self._engine.encode(rendered, params, number, lora_request=adapter):
                output = result
        except EngineDeadError as error:
            raise BackendUnavailable("the vLLM engine died while it worked; its log says why") from error
        except (VLLMClientError, ValueError) as error:
            raise InvalidInput(f"the engine refuses the prompt: {error}", index=index) from error
        except Exception as error:
            if self._engine.errored:
                raise BackendUnavailable("the vLLM engine died while it worked; its log says why") from error
            raise BackendError(f"the vLLM engine failed on a prompt: {error}") from error
        states = np.asarray(output.outputs.data.float().numpy(), dtype=np.float32)  # [D], or [S, D] for a multivector
        folder = None if adapter is None else Path(adapter.lora_path)
        return await self._outputs.make(prompt, states, len(output.prompt_token_ids), folder)

    async def _rendered(self, prompt: RenderedPrompt) -> Any:
        """Return a prompt as the engine takes it; only pictures are work for vLLM's own threads."""
        from vllm.inputs import TokensPrompt, tokens_input

        ids = list(prompt.token_ids)
        if not prompt.images:
            return tokens_input(ids)
        request = TokensPrompt(prompt_token_ids=ids, multi_modal_data={"image": list(prompt.images)})
        (rendered,) = await self._engine.renderer.render_cmpl_async([request])
        return rendered


def start(
    model_dir: ModelDir,
    *,
    precision: str = "float32",
    max_waiting: int = 4096,
    kv_cache_gib: float | None = None,
    gpu_memory_utilization: float = 0.9,
    adapters: AdapterRoom | None = None,
) -> VllmBackend:
    """Start the engine for a model directory and prove that it answers; blocks for tens of seconds.

    Args:
        model_dir: the opened model directory.
        precision: `float32`, `bfloat16`, `float16`, or `4bit` (bitsandbytes; GPU only).
        max_waiting: prompts that may be under way; more are refused.
        kv_cache_gib: memory for attention states on a CPU, in GiB; None takes what the longest prompt needs.
        gpu_memory_utilization: share of the GPU's memory that the engine may take.
        adapters: room for LoRA adapters beside the model, if there is to be any.

    Raises:
        BackendUnavailable: vLLM is not installed or does not start.
        IncompatibleCheckpoint: vLLM cannot run the adapter, or the adapter changes nothing.
    """
    if (reason := vllm_refusal(model_dir, adapters=adapters is not None)) is not None:
        raise BackendUnavailable(f"vLLM cannot serve {model_dir.recipe.name}: {reason}; use the transformers backend")
    loop = LoopThread("mllm-embed-vllm")
    try:
        with engine_environment():
            torch_compat.apply()
            logging.getLogger("vllm.triton_utils").setLevel(logging.ERROR)  # it warns before logging is set up
            options = _options(model_dir, precision, kv_cache_gib, gpu_memory_utilization)
            options |= adapter_options(model_dir, adapters, on_cpu=not has_gpu())
            # No name here for the engine: vLLM keeps this frame, and the backend must be the engine's only owner.
            backend = VllmBackend(
                loop.run(_construct(options)),
                loop,
                None if model_dir.adapter is None else _lora_request(model_dir.adapter, _OWN_ADAPTER),
                OutputMaker(model_dir, precision),
                room=adapters,
                max_waiting=max_waiting,
                max_images=model_dir.family.vllm.max_images or MAX_IMAGES,
            )
    except BaseException:
        loop.stop()
        raise
    try:
        loop.run(_prove(backend, model_dir))
    except BaseException:
        backend.stop()
        raise
    return backend


class _Adapter:
    """The engine as seen through one adapter."""

    name = VllmBackend.name

    def __init__(self, engine: VllmBackend, adapter: LoRARequest) -> None:
        self._engine = engine
        self._adapter = adapter
        self._closed = False

    async def load(self) -> None:
        await self._engine.load(self._adapter)

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        return await self._engine.embed_through(self._adapter, prompts)

    def check_health(self) -> None:
        self._engine.check_health()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._engine.unload(self._adapter)


def _lora_request(adapter: Path, number: int) -> LoRARequest:
    from vllm.lora.request import LoRARequest

    return LoRARequest(f"adapter-{number}", number, str(adapter))


async def _construct(options: dict[str, Any]) -> AsyncLLM:
    """Start the engine's processes, on the loop that the engine will live on."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**options))
    except Exception as error:  # vLLM raises many kinds; all mean that there is no engine
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise BackendUnavailable(f"vLLM does not start: {reason}") from error


async def _leave(engine: AsyncLLM) -> None:
    """Stop the engine's listener, to which the end of the engine's processes is otherwise news of a disaster."""
    if engine.output_handler is not None:
        engine.output_handler.cancel()


async def _close_sockets(engine: AsyncLLM) -> None:
    """Close what an engine whose processes have ended leaves open, on its own loop."""
    await asyncio.sleep(0)  # its sockets are closed by a callback
    engine.engine_core.resources.ctx.destroy(linger=0)


def _options(
    model_dir: ModelDir, precision: str, kv_cache_gib: float | None, gpu_memory_utilization: float
) -> dict[str, Any]:
    """The engine's settings: the recipe's limits, the adapter's rank, what the machine needs."""
    from vllm.config import PoolerConfig
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    recipe = model_dir.recipe
    options: dict[str, Any] = {
        "model": str(model_dir.weights),
        "runner": "pooling",
        "pooler_config": PoolerConfig(seq_pooling_type="LAST"),
        "dtype": precision,
        "max_model_len": recipe.max_tokens,
        "limit_mm_per_prompt": {"image": model_dir.family.vllm.max_images or MAX_IMAGES, "video": 0},
        "mm_processor_kwargs": model_dir.pixels.options(),
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if has_gpu():
        options["gpu_memory_utilization"] = gpu_memory_utilization
        if precision == "4bit":
            options |= {"quantization": "bitsandbytes", "dtype": "bfloat16"}
        return options
    if precision == "4bit":
        raise BackendUnavailable("4bit needs a GPU in vLLM; on a CPU use the transformers backend")
    size = int(kv_cache_gib * 2**30) if kv_cache_gib is not None else kv_bytes(model_dir, precision)
    # vLLM starts a process for the scheduler and one for the model; on a CPU one for both starts in half the time.
    return {
        **options,
        "enforce_eager": True,
        "kv_cache_memory_bytes": size,
        "distributed_executor_backend": UniProcExecutor,
    }


async def _prove(backend: VllmBackend, model_dir: ModelDir) -> None:
    """Embed one text; with an adapter, prove that it changes the vector."""
    if model_dir.adapter is None:
        await backend.embed(_probe(model_dir))
    else:
        await _prove_effect(backend.embed, backend.embed_base, model_dir)


async def _prove_effect(tuned: _Embed, base: _Embed, model_dir: ModelDir) -> None:
    """Prove that an adapter changes a vector: one whose keys have a foreign prefix loads without a word."""
    (with_it,), (without,) = await tuned(_probe(model_dir)), await base(_probe(model_dir))
    if np.array_equal(with_it.vector, without.vector):
        raise IncompatibleCheckpoint(f"{model_dir.adapter}: the adapter changes nothing, so its keys fit another model")


def _probe(model_dir: ModelDir) -> list[RenderedPrompt]:
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    return [renderer.render(EmbedInput.of("a picture of a cat"), "", [])]
