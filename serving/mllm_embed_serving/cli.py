"""`mllm-embed serve`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mllm_embed.backends import BackendName
from mllm_embed.model_dir import BUILT_IN
from mllm_embed_serving.token_ids import TokenIds

_LIMITS = "Limits"
_DEMO = "Playground"


def serve(
    model: Annotated[str, typer.Argument(help="A model directory, a hub name, or the built-in model.")] = BUILT_IN,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    backend: Annotated[
        BackendName, typer.Option(help="Engine; auto takes vLLM where it is installed, else transformers.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")] = "float32",
    max_tokens: Annotated[
        int | None, typer.Option(help="Lower the model's token limit, to save the engine's memory.", min=1)
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="MLLM_EMBED_API_KEY",
            help="Key that every route but /health asks for. Prefer the variable: others can see a command line.",
        ),
    ] = None,
    allow_url_media: Annotated[
        bool, typer.Option("--allow-url-media", help="Fetch images from public http(s) URLs that requests name.")
    ] = False,
    token_ids: Annotated[
        TokenIds, typer.Option(help="What arrays of token ids are: the model's own, OpenAI's cl100k, or refused.")
    ] = "native",  # noqa: S107  # ids of words, not a secret
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Also start the playground.", rich_help_panel=_DEMO)
    ] = False,
    demo_host: Annotated[
        str, typer.Option(help="Address of the playground, which asks for no key.", rich_help_panel=_DEMO)
    ] = "127.0.0.1",
    demo_port: Annotated[
        int, typer.Option(help="Port of the playground.", min=1, max=65535, rich_help_panel=_DEMO)
    ] = 7860,
    gallery: Annotated[
        Path | None, typer.Option(help="Folder of pictures for the playground.", rich_help_panel=_DEMO)
    ] = None,
    max_body_mb: Annotated[float, typer.Option(help="Longest request body, MiB.", rich_help_panel=_LIMITS)] = 32,
    max_items: Annotated[int, typer.Option(help="Most items per request.", rich_help_panel=_LIMITS)] = 2048,
    max_images: Annotated[int, typer.Option(help="Most images per request.", rich_help_panel=_LIMITS)] = 64,
    max_image_mb: Annotated[float, typer.Option(help="Largest image file, MiB.", rich_help_panel=_LIMITS)] = 20,
    max_image_megapixels: Annotated[
        float, typer.Option(help="Largest image, megapixels.", rich_help_panel=_LIMITS)
    ] = 40,
    max_request_megapixels: Annotated[
        float, typer.Option(help="Most megapixels per request.", rich_help_panel=_LIMITS)
    ] = 160,
    max_text_chars: Annotated[
        int,
        typer.Option(help="Longest text, characters; the model's token limit comes on top.", rich_help_panel=_LIMITS),
    ] = 400_000,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve a model behind an OpenAI-compatible embeddings API.

    Starts the engine, prints where the API answers and a curl command to paste; Ctrl-C stops everything.

    Examples:
      mllm-embed serve --demo

      mllm-embed serve out/my-model --port 9000 --backend transformers

      mllm-embed serve Qwen/Qwen3-VL-Embedding-2B --precision bfloat16

      MLLM_EMBED_API_KEY=secret mllm-embed serve --host 0.0.0.0
    """
    # Imported here, so that `mllm-embed --help` needs none of the packages that serving needs.
    from rich.console import Console

    from mllm_embed.embedder import Embedder
    from mllm_embed_serving.runner import RunOptions, run
    from mllm_embed_serving.settings import ServerSettings

    settings = ServerSettings(
        api_key=api_key,
        allow_url_media=allow_url_media,
        token_ids=token_ids,
        max_body_bytes=int(max_body_mb * 2**20),
        max_items=max_items,
        max_images=max_images,
        max_image_bytes=int(max_image_mb * 2**20),
        max_image_pixels=int(max_image_megapixels * 1e6),
        max_request_pixels=int(max_request_megapixels * 1e6),
        max_text_chars=max_text_chars,
    )
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "uvicorn.error"):  # the first would log every media URL that it fetches
        logging.getLogger(chatty).setLevel(logging.WARNING)

    def load() -> Embedder:
        embedder = Embedder.load(
            model, backend=backend, precision=precision, policy=settings.media_policy(), max_tokens=max_tokens
        )
        _ = embedder.model_dir.fingerprint  # hashes the weights: seconds, better spent now than in a request
        return embedder

    run(
        RunOptions(
            model=model,
            load=load,
            settings=settings,
            host=host,
            port=port,
            demo_host=demo_host,
            demo_port=demo_port if demo else None,
            gallery=gallery,
        ),
        Console(),
    )
    # Everything of ours has stopped; the interpreter's own teardown of torch and an engine would take seconds more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
