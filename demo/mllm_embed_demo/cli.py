"""`mllm-embed demo`."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from mllm_embed.errors import MllmEmbedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mllm_embed_demo.client import EmbeddingsClient
    from mllm_embed_demo.search import Playground


def demo(
    *,
    api_url: Annotated[str, typer.Option(help="An OpenAI-compatible embeddings server.")] = "http://127.0.0.1:8000",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 7860,
    gallery: Annotated[
        Path | None, typer.Option(help="Folder of pictures to search, with its subfolders; else built-in examples.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="MLLM_EMBED_API_KEY",
            help="Key of the server. Prefer the variable: others can see a command line.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model name; else the first that the server lists.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the server.", min=0)] = 120,
) -> None:
    """Open the playground: multimodal search in the browser, over any OpenAI-compatible embeddings server.

    The first start embeds the gallery; the vectors are kept in ~/.cache/mllm-embed, so the next start is instant.

    Examples:
      mllm-embed demo

      mllm-embed demo --gallery ~/Pictures

      mllm-embed demo --api-url http://gpu-box:8000 --port 8080
    """
    # Imported here, so that `mllm-embed --help` needs none of the packages that the playground needs.
    from rich.console import Console

    from mllm_embed_demo.client import EmbeddingsClient

    logging.getLogger("httpx").setLevel(logging.WARNING)  # would log every request
    console = Console(stderr=True)
    with EmbeddingsClient(api_url, api_key=api_key, model=model) as client:
        with console.status(f"Waiting for the API at {client.api_url} …") as status:
            client.wait(wait, lambda waited: status.update(f"Waiting for the API at {client.api_url} … {waited:.0f} s"))
        _run(_open_gallery(client, gallery, console), host, port, console)


def _open_gallery(client: EmbeddingsClient, folder: Path | None, console: Console) -> Playground:
    from mllm_embed_demo.gallery import cache_dir, example_gallery, folder_gallery
    from mllm_embed_demo.search import Playground

    cache = cache_dir()
    if folder is None:
        pictures = example_gallery(cache / "playground")
    else:
        pictures, skipped = folder_gallery(folder.expanduser())
        report(skipped, console)
    return Playground(client, pictures, cache / "playground" / "vectors")


def _run(playground: Playground, host: str, port: int, console: Console) -> None:
    """Serve the page at once, and embed the gallery meanwhile; the page shows how far that is."""
    import uvicorn

    from mllm_embed_demo.web import create_web_app

    with _listen(host, port) as listener:
        server = uvicorn.Server(uvicorn.Config(create_web_app(playground), log_level="warning"))
        Thread(target=_embed_gallery, args=(playground, console), daemon=True).start()
        console.print(f"Playground: http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}")  # noqa: S104
        with suppress(KeyboardInterrupt):  # uvicorn has stopped in order by then
            server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else is started, so that a taken one is one sentence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # from here on a browser waits instead of being refused
    except OSError as error:
        listener.close()
        raise MllmEmbedError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from None
    return listener


def _embed_gallery(playground: Playground, console: Console) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("Embedding the gallery"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            row = bar.add_task("", total=len(playground.pictures))
            index = playground.index(lambda done, total: bar.update(row, completed=done, total=total))
    except MllmEmbedError as error:
        console.print(f"The gallery is not embedded yet: {error}. Reload the page to try again.", markup=False)
        return
    report(index.skipped, console)


def report(skipped: Sequence[str], console: Console) -> None:
    """Name the pictures that were left out; after the first twenty, only how many more."""
    for line in skipped[:20]:
        console.print(f"left out: {line}", markup=False)
    if len(skipped) > 20:
        console.print(f"left out: {len(skipped) - 20} more")
