"""vLLM's asynchronous engine in our own process. The only file that knows vLLM's names.

The engine lives on an event loop of its own, so that its preprocessing never holds up callers, who may come from any
loop. Its worker processes are started by vLLM; what they need of us reaches them through the environment.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from mllm_embed.backends.base import MAX_IMAGES
from mllm_embed.backends.loop_thread import LoopThread
from mllm_embed.backends.support import vllm_refusal
from mllm_embed.errors import BackendError, BackendUnavailable, IncompatibleCheckpoint, InvalidInput, Overloaded
from mllm_embed.modeling import torch_compat
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import Embedding, EmbedInput, RenderedPrompt

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    from mllm_embed.families import Family
    from mllm_embed.model_dir import ModelDir

_ENGINE_SITE = Path(__file__).parent / "_engine_site"
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_CPU_BLOCK = 128
"""Tokens per block of attention states on a CPU."""
_SHUTDOWN_S = 3.0
"""Seconds that the engine's processes get to end on their own."""


class VllmBackend:
    """A started vLLM engine.

    Args:
        engine: the engine.
        loop: the event loop it lives on; closed with it.
        adapter: the LoRA adapter that every prompt is run through, if any.
        max_waiting: prompts that may be under way; more are refused.
        max_images: most pictures in one prompt.
    """

    name = "vllm"

    def __init__(
        self,
        engine: AsyncLLM,
        loop: LoopThread,
        adapter: LoRARequest | None,
        *,
        max_waiting: int,
        max_images: int = MAX_IMAGES,
    ) -> None:
        self._engine = engine
        self._max_images = max_images
        self._loop = loop
        self._adapter = adapter
        self._max_waiting = max_waiting
        self._under_way = 0
        self._numbers = itertools.count()
        self._closed = False
        atexit.register(self.stop)  # before multiprocessing's own exit handler, which ends processes noisily

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one full-width unit vector per prompt; see `Backend.embed`."""
        return await self._submit(prompts, self._adapter)

    async def embed_base(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return the vectors of the base model, as if there were no adapter."""
        return await self._submit(prompts, None)

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
        self._loop.run(_shut_down(self._engine))
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
        tasks = [asyncio.ensure_future(self._one(prompt, adapter, i)) for i, prompt in enumerate(prompts)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, prompt: RenderedPrompt, adapter: LoRARequest | None, index: int) -> Embedding:
        from vllm import PoolingParams
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError

        if len(prompt.images) > self._max_images:
            raise InvalidInput(
                f"vLLM reads at most {self._max_images} image in an input as this model's family does, but there are "
                f"{len(prompt.images)}; the transformers backend takes them",
                index=index,
            )
        request = TokensPrompt(prompt_token_ids=list(prompt.token_ids))
        if prompt.images:
            request["multi_modal_data"] = {"image": list(prompt.images)}
        params = PoolingParams(task="embed")
        output: Any = None
        try:
            (rendered,) = await self._engine.renderer.render_cmpl_async([request])
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
        vector = output.outputs.data.float().numpy()
        return Embedding(np.asarray(vector, dtype=np.float32), len(output.prompt_token_ids))


def start(
    model_dir: ModelDir,
    *,
    precision: str = "float32",
    max_waiting: int = 4096,
    kv_cache_gib: float | None = None,
    gpu_memory_utilization: float = 0.9,
) -> VllmBackend:
    """Start the engine for a model directory and prove that it answers; blocks for tens of seconds.

    Args:
        model_dir: the opened model directory.
        precision: `float32`, `bfloat16`, `float16`, or `4bit` (bitsandbytes; GPU only).
        max_waiting: prompts that may be under way; more are refused.
        kv_cache_gib: memory for attention states on a CPU, in GiB; None takes what the longest prompt needs.
        gpu_memory_utilization: share of the GPU's memory that the engine may take.

    Raises:
        BackendUnavailable: vLLM is not installed or does not start.
        IncompatibleCheckpoint: vLLM cannot run the adapter, or the adapter changes nothing.
    """
    if (reason := vllm_refusal(model_dir)) is not None:
        raise BackendUnavailable(f"vLLM cannot serve {model_dir.recipe.name}: {reason}; use the transformers backend")
    loop = LoopThread("mllm-embed-vllm")
    try:
        with _engine_environment():
            torch_compat.apply()
            logging.getLogger("vllm.triton_utils").setLevel(logging.ERROR)  # it warns before logging is set up
            options = _options(model_dir, precision, kv_cache_gib, gpu_memory_utilization)
            # No name here for the engine: vLLM keeps this frame, and the backend must be the engine's only owner.
            backend = VllmBackend(
                loop.run(_construct(options)),
                loop,
                _lora_request(model_dir.adapter),
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


def _lora_request(adapter: Path | None) -> LoRARequest | None:
    from vllm.lora.request import LoRARequest

    return None if adapter is None else LoRARequest("adapter", 1, str(adapter))


async def _construct(options: dict[str, Any]) -> AsyncLLM:
    """Start the engine's processes, on the loop that the engine will live on."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**options))
    except Exception as error:  # vLLM raises many kinds; all mean that there is no engine
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise BackendUnavailable(f"vLLM does not start: {reason}") from error


async def _shut_down(engine: AsyncLLM) -> None:
    """Stop the engine's processes; first its listener, to which their end is otherwise news of a disaster."""
    if engine.output_handler is not None:
        engine.output_handler.cancel()
    logging.getLogger("vllm.v1.utils").setLevel(logging.ERROR)  # its processes linger and have to be killed
    await asyncio.to_thread(engine.shutdown, _SHUTDOWN_S)
    await asyncio.sleep(0)  # its sockets are closed by a callback on this loop
    engine.engine_core.resources.ctx.destroy(linger=0)


def _options(
    model_dir: ModelDir, precision: str, kv_cache_gib: float | None, gpu_memory_utilization: float
) -> dict[str, Any]:
    """The engine's settings: the recipe's limits, the adapter's rank, what the machine needs."""
    import torch
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
        **(_adapter_options(model_dir.adapter, model_dir.family) if model_dir.adapter is not None else {}),
    }
    if torch.version.cuda is not None and torch.cuda.is_available():
        options["gpu_memory_utilization"] = gpu_memory_utilization
        if precision == "4bit":
            options |= {"quantization": "bitsandbytes", "dtype": "bfloat16"}
        return options
    if precision == "4bit":
        raise BackendUnavailable("4bit needs a GPU in vLLM; on a CPU use the transformers backend")
    size = int(kv_cache_gib * 2**30) if kv_cache_gib is not None else _kv_bytes(model_dir, precision)
    # vLLM starts a process for the scheduler and one for the model; on a CPU one for both starts in half the time.
    return {
        **options,
        "enforce_eager": True,
        "kv_cache_memory_bytes": size,
        "distributed_executor_backend": UniProcExecutor,
    }


def _adapter_options(adapter: Path, family: Family) -> dict[str, Any]:
    """The settings that a LoRA adapter needs; refuses what vLLM's loader would drop without a word."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("use_dora"):
        raise IncompatibleCheckpoint(
            f"{adapter} is a DoRA adapter, which vLLM cannot run: merge it (mllm-embed export)"
        )
    ranks = [int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]
    if max(ranks) > _LORA_RANKS[-1]:
        raise IncompatibleCheckpoint(
            f"{adapter}: the rank of a LoRA adapter may be at most {_LORA_RANKS[-1]} in vLLM, but is {max(ranks)}"
        )
    rank = min(rank for rank in _LORA_RANKS if rank >= max(ranks))
    with safe_open(adapter / "adapter_model.safetensors", framework="numpy") as stored:
        parts = [f".{part.rpartition('.')[2]}." for part in (family.tower, family.projector) if part is not None]
        tower = any(part in name for name in stored.keys() for part in parts)  # noqa: SIM118  # not a mapping
    if tower and not family.vllm.tower_lora:
        raise IncompatibleCheckpoint(
            f"{adapter} adapts the vision tower, which vLLM cannot do for the family {family.name}: merge it "
            "(mllm-embed export)"
        )
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank, "enable_tower_connector_lora": tower}


def _kv_bytes(model_dir: ModelDir, precision: str) -> int:
    """Bytes of attention states for at least one longest prompt, and no less than half a GiB."""
    text = model_dir.family.text_config(json.loads((model_dir.weights / "config.json").read_text(encoding="utf-8")))
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    heads = text.get("num_key_value_heads") or text["num_attention_heads"]
    per_token = 2 * text["num_hidden_layers"] * heads * head_dim * (4 if precision == "float32" else 2)
    return int(max(2**29, 1.25 * per_token * (model_dir.recipe.max_tokens + _CPU_BLOCK)))


@contextlib.contextmanager
def _engine_environment() -> Iterator[None]:
    """Set the environment that vLLM reads at import and that its processes inherit, and restore it afterwards."""
    path = os.pathsep.join(filter(None, (str(_ENGINE_SITE), os.environ.get("PYTHONPATH"))))
    wanted = {"PYTHONPATH": path, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    # OpenMP threads that spin while they wait make the engine many times slower wherever others want the cores.
    for name, default in (
        ("VLLM_LOGGING_LEVEL", "ERROR"),
        ("TORCH_CPP_LOG_LEVEL", "ERROR"),
        ("OMP_WAIT_POLICY", "PASSIVE"),
    ):
        wanted[name] = os.environ.get(name, default)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def _prove(backend: VllmBackend, model_dir: ModelDir) -> None:
    """Embed one text; with an adapter, prove that it changes the vector (a foreign key prefix loads without a word)."""
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    probe = [renderer.render(EmbedInput.of("a picture of a cat"), "", [])]
    (tuned,) = await backend.embed(probe)
    if model_dir.adapter is None:
        return
    (base,) = await backend.embed_base(probe)
    if np.array_equal(tuned.vector, base.vector):
        raise IncompatibleCheckpoint(f"{model_dir.adapter}: the adapter changes nothing, so its keys fit another model")
