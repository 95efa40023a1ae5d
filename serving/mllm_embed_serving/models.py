"""The names under which vectors can be had: the served model, and LoRA adapters on it that come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from mllm_embed.adapters import open_adapter
from mllm_embed.backends import RunsAdapters
from mllm_embed.embedder import Embedder
from mllm_embed.errors import IncompatibleCheckpoint, ModelError
from mllm_embed_serving.errors import AdapterRefused, InvalidParameter, UnknownModel
from mllm_embed_serving.fields import shown
from mllm_embed_serving.pipeline.front import Front

Serve = Callable[[Embedder], Front]
"""Makes what embeds the requests of an embedder."""


class ServedModel:
    """What answers to one name.

    Args:
        embedder: the model.
        front: embeds requests for it.
        parent: the name of the model whose weights it is an adapter on.

    Attributes:
        embedder: the model.
        front: embeds requests for it.
    """

    def __init__(self, embedder: Embedder, front: Front, parent: str | None = None) -> None:
        self.embedder = embedder
        self.front = front
        self._parent = parent
        self._users = 0
        self._retired = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def name(self) -> str:
        """The name."""
        return self.embedder.name

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep it loaded while a request for it is under way.

        Raises:
            UnknownModel: it has been unloaded since it was found.
        """
        if self._retired:
            raise UnknownModel(f"the model {shown(self.name)} has just been unloaded", param="model")
        self._users += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    async def retire(self) -> None:
        """Take no more requests, wait for those under way, then free what the engine holds for it."""
        self._retired = True
        await self._idle.wait()
        await self.embedder.aclose()

    async def card(self) -> dict[str, Any]:
        """Return OpenAI's model object, with everything that decides which vector an input gets."""
        recipe = self.embedder.model_dir.recipe
        return {
            "id": self.name,
            "object": "model",
            "created": self._created,
            "owned_by": "mllm-embed",
            "parent": self._parent,
            "backend": self.embedder.backend.name,
            "family": recipe.family,
            "dimensions": recipe.dimensions,
            "matryoshka_dimensions": list(recipe.matryoshka_dimensions),
            "max_tokens": recipe.max_tokens,
            "max_image_pixels": recipe.max_pixels,
            "template": recipe.template,
            "template_version": recipe.template_version,
            "pooling": recipe.pooling,
            "position_mode": recipe.position_mode,
            "normalized": True,
            "adapter_sha256": recipe.adapter_sha256,
            "fingerprint": await asyncio.to_thread(lambda: self.embedder.model_dir.fingerprint),
        }

    @cached_property
    def _created(self) -> int:
        """When the model was written, in Unix seconds."""
        model_dir = self.embedder.model_dir
        file = model_dir.weights / "config.json" if self._parent is None else model_dir.path
        return int(file.stat().st_mtime)


class Models:
    """All names of one server.

    Args:
        embedder: the served model.
        serve: makes what embeds the requests of an embedder.
        most: adapters that may be loaded at once.
        folder: where adapters that callers name are looked for; None lets them name none.
    """

    def __init__(self, embedder: Embedder, serve: Serve, *, most: int, folder: Path | None) -> None:
        self.base = ServedModel(embedder, serve(embedder))
        self._serve = serve
        self._most = most
        self._folder = folder
        self._models = {embedder.name: self.base}
        self._changing = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """The names, the served model's first."""
        return list(self._models)

    def all(self) -> list[ServedModel]:
        """Return what is served now, the served model first."""
        return list(self._models.values())

    def find(self, name: str) -> ServedModel:
        """Return what answers to a name.

        Raises:
            UnknownModel: nothing does.
        """
        if (found := self._models.get(name)) is not None:
            return found
        known = ", ".join(map(repr, self.names))
        raise UnknownModel(f"the model {shown(name)} does not exist here; this server serves {known}", param="model")

    async def load_asked(self, name: str, path: str) -> ServedModel:
        """Load an adapter that a caller names, from the folder for them.

        Raises:
            InvalidParameter: the path leads out of the folder.
            AdapterRefused: there is no adapter, or it does not fit.
        """
        folder = (self._folder or Path()).resolve()
        try:
            found = (folder / path).resolve()
        except (OSError, ValueError, RuntimeError):  # a NUL, or a circle of links
            found = Path("/")
        if self._folder is None or not found.is_relative_to(folder):
            raise InvalidParameter("must lie in the server's folder of adapters", param="lora_path")
        try:
            return await self.load(name, found)
        except ModelError as error:
            raise AdapterRefused(str(error).replace(f"{folder}/", "")) from error

    async def load(self, name: str, path: Path) -> ServedModel:
        """Load an adapter, prove that it changes a vector, and serve it.

        Raises:
            InvalidParameter: the name is taken, or as many adapters are loaded as may be.
            ModelError: there is no adapter, or it does not fit.
            BackendUnavailable: the engine is down.
        """
        async with self._changing:
            if name in self._models:
                raise InvalidParameter(f"{shown(name)} is already served here", param="lora_name")
            if len(self._models) > self._most:
                raise InvalidParameter(
                    f"at most {self._most} adapters may be loaded, and as many are: unload one first", param="lora_name"
                )
            base = self.base.embedder
            if not isinstance(base.backend, RunsAdapters):
                raise IncompatibleCheckpoint(f"the engine {base.backend.name} runs no adapters")
            model_dir = await asyncio.to_thread(open_adapter, base.model_dir, name, path)
            await asyncio.to_thread(lambda: model_dir.fingerprint)  # hashes files; the cache needs it
            view = await base.backend.with_adapter(model_dir)
            embedder = Embedder(model_dir, view, region_encoder=base.region_encoder)
            served = self._models[name] = ServedModel(embedder, self._serve(embedder), base.name)
            return served

    async def unload(self, name: str) -> None:
        """Serve an adapter no longer: at once for new requests, and free it when those under way are answered.

        Raises:
            UnknownModel: there is no such adapter.
            InvalidParameter: it is the served model itself.
        """
        async with self._changing:
            found = self.find(name)
            if found is self.base:
                raise InvalidParameter("is the served model itself, which cannot be unloaded", param="lora_name")
            del self._models[name]
        await found.retire()
