"""The life of a server process: bind, load the engine, serve, and stop everything in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendUnavailable
from mllm_embed_serving.access.admission import Admission
from mllm_embed_serving.addresses import bind, port_errors, url
from mllm_embed_serving.app import create_app
from mllm_embed_serving.banner import banner
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.playground import Playground
from mllm_embed_serving.protocol import PromptProtocol
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.tracing import OpenTelemetryTracer

_LOG = logging.getLogger(__name__)
_ENGINE_STOP_S = 10.0


@dataclass(frozen=True)
class DemoOptions:
    """The playground beside a server.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        gallery: its pictures; None lets it make its own.
        api_key: the key with which it asks the API.
    """

    host: str
    port: int
    gallery: Path | None
    api_key: str | None


@dataclass(frozen=True)
class RunOptions:
    """What one server process runs.

    Attributes:
        model: the model, for the progress line.
        load: loads the embedder; blocks until its engine can take work.
        settings: limits and switches.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        demo: the playground; None starts none.
    """

    model: str
    load: Callable[[], Embedder]
    settings: ServerSettings
    host: str
    port: int
    demo: DemoOptions | None


class _Stop:
    """What SIGINT and SIGTERM ask for: once, to stop when all is answered; twice, to stop now."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        """Take note of a signal."""
        (self.at_once if self.asked.is_set() else self.asked).set()


def run(options: RunOptions, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        InvalidSettings: the playground has no key to ask the API with.
        PortInUse: found before the engine is loaded.
        MllmEmbedError: the model or its engine cannot be used.
    """
    if options.demo is not None and options.settings.api_keys and options.demo.api_key is None:
        raise InvalidSettings("the playground needs a key of its own to ask the API with: give one with --api-key")
    if options.demo is not None and options.settings.tls is not None:
        raise InvalidSettings(
            "--demo does not go with --tls-cert: run `mllm-embed demo` with the server's https address"
        )
    listener = bind(options.host, options.port, "--port")
    with contextlib.closing(listener):
        if options.demo is not None:
            bind(options.demo.host, options.demo.port, "--demo-port").close()
        with asyncio.Runner(loop_factory=_event_loop()) as runner:
            runner.run(_run(options, listener, console))


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The quicker event loop where there is one (not on Windows), as uvicorn picks it when it runs by itself."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(options: RunOptions, listener: socket.socket, console: Console) -> None:
    stop = _Stop()
    with _stopping(stop):
        embedder = await _load(options, stop, console)
        try:
            await _serve(embedder, options, listener, stop, console)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ENGINE_STOP_S):
                    await embedder.aclose()
            _end_engine_processes()


async def _load(options: RunOptions, stop: _Stop, console: Console) -> Embedder:
    """Load in a thread of its own, so that Ctrl-C works meanwhile."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[Embedder] = loop.create_future()

    def work() -> None:
        # Inherited by the engine's processes: Ctrl-C in a terminal reaches all, but it is for us to stop them in order.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            embedder = options.load()
        except BaseException as error:  # noqa: BLE001 - carried over to the waiting thread
            loop.call_soon_threadsafe(loaded.set_exception, error)
        else:
            loop.call_soon_threadsafe(loaded.set_result, embedder)

    threading.Thread(target=work, name="load", daemon=True).start()
    stopped = asyncio.ensure_future(stop.asked.wait())
    with _progress(f"Loading {options.model}", console):
        waiting: set[asyncio.Future[Any]] = {loaded, stopped}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if not loaded.done():
        # A starting engine cannot be interrupted from inside: end its processes, and leave without waiting for it.
        _end_engine_processes()
        sys.stdout.flush()
        os._exit(0)
    stopped.cancel()
    return loaded.result()


async def _serve(
    embedder: Embedder, options: RunOptions, listener: socket.socket, stop: _Stop, console: Console
) -> None:
    settings = options.settings
    app = create_app(embedder, settings, OpenTelemetryTracer() if settings.otel else None)
    await app.state.service.load_adapters()
    # What is loaded by now stays: without this the collector goes through all objects of torch and vLLM again and again
    # while requests are served. benchmarks/serving/paired.py shows what that costs.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=settings.shutdown_grace_s,
        ssl_certfile=settings.tls.certificate if settings.tls else None,
        ssl_keyfile=settings.tls.key if settings.tls else None,
    )
    server = _Server(config)
    with port_errors(options.host, options.port, "--port"):
        listener.listen()  # fails if another server that was started meanwhile has won the race
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    stopped = asyncio.ensure_future(stop.asked.wait())
    ready = asyncio.ensure_future(server.ready.wait())
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    app.state.batches.wake()
    api_url = url(options.host, listener.getsockname()[1], "http" if settings.tls is None else "https")
    playground = _start_playground(options.demo, api_url)
    announcing = asyncio.ensure_future(_announce(embedder.name, api_url, playground, settings, console))
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        announcing.cancel()
        stopped.cancel()
        await _drain(app.state.service.admission, stop, settings.drain_timeout_s)
        server.should_exit = True
        if playground is not None:
            await playground.stop()
        await serving
        await app.state.batches.aclose()


async def _drain(admission: Admission, stop: _Stop, seconds: float) -> None:
    """Let the requests under way finish, while new ones are refused; a second signal ends the wait."""
    waiting = {asyncio.ensure_future(admission.drain()), asyncio.ensure_future(stop.at_once.wait())}
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _start_playground(demo: DemoOptions | None, api_url: str) -> Playground | None:
    if demo is None:
        return None
    return Playground(api_url=api_url, host=demo.host, port=demo.port, gallery=demo.gallery, api_key=demo.api_key)


async def _announce(
    model: str, api_url: str, playground: Playground | None, settings: ServerSettings, console: Console
) -> None:
    """Say where everything is, as soon as everything answers."""
    if playground is not None:
        try:
            with _progress("Starting the playground", console):
                await playground.wait_ready()
        except BackendUnavailable as error:
            _LOG.error("%s", error)
            playground = None
    text = banner(model, api_url, None if playground is None else playground.url, needs_key=bool(settings.api_keys))
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Server(uvicorn.Server):
    """Leaves signals to `_stopping`: uvicorn would raise them again after its shutdown, before the engine's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say so."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


@contextlib.contextmanager
def _stopping(stop: _Stop) -> Iterator[None]:
    """Tell `stop` of SIGINT (Ctrl-C) and SIGTERM."""
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.ask)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress(what: str, console: Console) -> Iterator[None]:
    """Show a spinner with the time; where there is no terminal, one line."""
    if not console.is_terminal:
        console.print(f"{what} ...", highlight=False, markup=False)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def _end_engine_processes() -> None:
    """End what an engine may have left behind: its processes are ours."""
    for process in multiprocessing.active_children():
        process.terminate()
        process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join(1.0)
