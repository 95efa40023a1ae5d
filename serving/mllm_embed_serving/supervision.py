"""An engine that is started anew when it dies, while the process goes on to answer that it cannot take work now."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Sequence

from mllm_embed.adapters import check_unchanged
from mllm_embed.backends import Backend, RunsAdapters
from mllm_embed.errors import BackendUnavailable, IncompatibleCheckpoint, MllmEmbedError
from mllm_embed.model_dir import ModelDir
from mllm_embed.types import Embedding, RenderedPrompt

_LOG = logging.getLogger(__name__)
POLL_S = 0.5
"""Seconds between two looks at the engine; a request that finds it dead says so at once."""
CLOSE_S = 15.0
"""Seconds that an engine gets to be closed."""
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
"""Seconds before the second attempt to start it, doubled for each one after, and their limit."""


class SupervisedBackend:
    """The engine of the moment, behind the contract of all engines.

    What is in the engine when it dies is answered with an error: nothing is computed again, nothing handed over. A
    thread of its own looks after it, since starting an engine blocks for tens of seconds.

    Args:
        first: the engine, started.
        start: starts another like it; blocks.

    Attributes:
        name: what the engine is called.
        restarts: how often it was started anew.
    """

    def __init__(self, first: Backend, start: Callable[[], Backend]) -> None:
        self.name = first.name
        self.restarts = 0
        self._engine: Backend | None = first
        self._start = start
        self._stopping = threading.Event()
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="mllm-embed-supervisor", daemon=True)
        self._thread.start()

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one vector per prompt; see `Backend.embed`."""
        try:
            return await self.current().embed(prompts)
        except BackendUnavailable:
            self.look()
            raise

    async def with_adapter(self, model_dir: ModelDir) -> Backend:
        """Load a LoRA adapter, again in every engine to come; see `RunsAdapters.with_adapter`."""
        view = _SupervisedAdapter(self, model_dir)
        await view.attach()
        return view

    def check_health(self) -> None:
        """Raise `BackendUnavailable` while the engine is dead or being started."""
        self.current().check_health()

    async def aclose(self) -> None:
        """Stop the engine, and do not start it again; calling it twice is harmless."""
        self._stopping.set()
        self._look.set()
        if self._engine is not None:
            await self._engine.aclose()

    def look(self) -> None:
        """Look after the engine at once."""
        self._look.set()

    def current(self) -> Backend:
        """Return the engine of the moment; raises `BackendUnavailable` while there is none."""
        engine = self._engine
        if engine is None:
            raise BackendUnavailable("the engine is being started anew")
        return engine

    def _supervise(self) -> None:
        # Inherited by the engine's processes: Ctrl-C in a terminal reaches all, but it is for us to stop them in order.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while not self._stopping.is_set():
            self._look.wait(POLL_S)
            self._look.clear()
            engine = self._engine
            if self._stopping.is_set() or engine is None:
                continue
            try:
                engine.check_health()
            except BackendUnavailable as error:
                _LOG.error("the engine is gone: %s", error)
                self._engine = None
                _close(engine)
                self._engine = self._started()

    def _started(self) -> Backend | None:
        """Start an engine, however many attempts it takes; None if the server stops meanwhile."""
        wait = FIRST_WAIT_S
        while not self._stopping.is_set():
            try:
                engine = self._start()
            except MllmEmbedError as error:
                _LOG.error("the engine does not start, next attempt in %g s: %s", wait, error)
                self._look.wait(wait)
                self._look.clear()
                wait = min(2 * wait, LONGEST_WAIT_S)
                continue
            if self._stopping.is_set():
                _close(engine)
                return None
            self.restarts += 1
            _LOG.warning("the engine has been started anew")
            return engine
        return None


class _SupervisedAdapter:
    """An adapter on the engine of the moment: the first request that meets a new engine loads it there."""

    def __init__(self, owner: SupervisedBackend, model_dir: ModelDir) -> None:
        self.name = owner.name
        self._owner = owner
        self._model_dir = model_dir
        self._attaching = asyncio.Lock()
        self._attached: tuple[Backend, Backend] | None = None

    async def attach(self) -> Backend:
        """Return the engine of the moment as seen through the adapter.

        Raises:
            BackendUnavailable: there is no engine now.
            IncompatibleCheckpoint: the adapter does not fit, or is not what it was when it was loaded first.
        """
        async with self._attaching:
            engine = self._owner.current()
            if self._attached is None or self._attached[0] is not engine:
                if not isinstance(engine, RunsAdapters):
                    raise IncompatibleCheckpoint(f"the engine {engine.name} runs no adapters")
                await asyncio.to_thread(check_unchanged, self._model_dir)
                self._attached = engine, await engine.with_adapter(self._model_dir)
            return self._attached[1]

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        try:
            return await (await self.attach()).embed(prompts)
        except BackendUnavailable:
            self._owner.look()
            raise

    def check_health(self) -> None:
        self._owner.check_health()

    async def aclose(self) -> None:
        async with self._attaching:
            if self._attached is not None:
                await self._attached[1].aclose()


def _close(engine: Backend) -> None:
    """Free what an engine holds; one that has died may fail or hang at that, which must not keep the next away."""

    def close() -> None:
        with contextlib.suppress(Exception):
            asyncio.run(engine.aclose())

    closing = threading.Thread(target=close, name="mllm-embed-close", daemon=True)
    closing.start()
    closing.join(CLOSE_S)
    if closing.is_alive():
        _LOG.warning("the engine that has died cannot be closed within %g s: it is left behind", CLOSE_S)
