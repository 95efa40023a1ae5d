"""The engine that a server starts: the model opened, room made for adapters, started anew should it die."""

from __future__ import annotations

from functools import partial

from mllm_embed.adapters import AdapterRoom, open_adapter
from mllm_embed.backends import BackendName, load_backend
from mllm_embed.embedder import Embedder
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.supervision import SupervisedBackend


def load_embedder(model: str, backend: BackendName, settings: ServerSettings, max_tokens: int | None) -> Embedder:
    """Load the served model; blocks until its engine can take work.

    Args:
        model: a model directory, the built-in model's name, or a hub name.
        backend: the engine.
        settings: says which adapters there will be.
        max_tokens: lowers the model's own limit, to save the engine's memory.

    Raises:
        ModelError: the model, or an adapter named in the settings, cannot be used.
        BackendUnavailable: the engine is not installed or does not start.
    """
    model_dir = open_model_dir(model)
    if max_tokens is not None:
        model_dir = model_dir.with_recipe(max_tokens=min(max_tokens, model_dir.recipe.max_tokens))
    room = _room(model_dir, settings)
    start = partial(load_backend, backend, model_dir, adapters=room, precision=settings.precision)
    embedder = Embedder(model_dir, SupervisedBackend(start(), start), settings.media_policy())
    _ = model_dir.fingerprint  # hashes the weights: seconds, better spent now than in a request
    return embedder


def _room(model_dir: ModelDir, settings: ServerSettings) -> AdapterRoom | None:
    """Return what the engine must be prepared for; adapters cost speed, so none unless there will be some."""
    adapters = [open_adapter(model_dir, name, path) for name, path in settings.adapters.items()]
    if settings.adapters_folder is not None:
        return AdapterRoom.for_all(adapters, slots=settings.max_adapters, rank=settings.max_adapter_rank)
    return AdapterRoom.for_all(adapters, slots=1, rank=1) if adapters else None
