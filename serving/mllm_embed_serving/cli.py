"""`mllm-embed serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mllm_embed.backends import BackendName
from mllm_embed.model_dir import BUILT_IN
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.logs import LogFormat, set_up
from mllm_embed_serving.token_ids import TokenIds

if TYPE_CHECKING:
    from mllm_embed_serving.runner import RunOptions

_ADAPTERS = "Adapters"
_ACCESS = "Keys and rates"
_LIMITS = "Limits"
_LOAD = "Load"
_CACHE = "Cache"
_BATCHES = "Batches"
_WATCH = "Logs and traces"
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
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Also serve the model with this LoRA adapter, under a name of its own; give it several times for "
            "several.",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None,
    adapters_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder from which admins may load adapters while the server runs; without it nobody may.",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None,
    max_adapters: Annotated[
        int, typer.Option(help="Most adapters at once, if admins may load some.", min=1, rich_help_panel=_ADAPTERS)
    ] = 4,
    max_adapter_rank: Annotated[
        int, typer.Option(help="Highest rank of an adapter that is loaded later.", min=1, rich_help_panel=_ADAPTERS)
    ] = 64,
    admin_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MLLM_EMBED_ADMIN_KEY",
            help="Like an API key, and may load and unload adapters. Prefer the variable.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MLLM_EMBED_API_KEY",
            help="Key that every route but /health asks for; give it several times for several keys (in the variable, "
            "separated by spaces). Prefer the variable: others can see a command line.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    api_keys_file: Annotated[
        Path | None,
        typer.Option(help="TOML file of hashed keys with limits of their own.", rich_help_panel=_ACCESS),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(help="Requests per minute and key.", min=1, rich_help_panel=_ACCESS)
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Tokens per minute and key, visual ones too.", min=1, rich_help_panel=_ACCESS)
    ] = None,
    concurrent_requests: Annotated[
        int | None, typer.Option(help="Requests under way at once, per key.", min=1, rich_help_panel=_ACCESS)
    ] = None,
    allow_url_media: Annotated[
        bool, typer.Option("--allow-url-media", help="Fetch media from public http(s) URLs that requests name.")
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
    max_video_mb: Annotated[float, typer.Option(help="Largest video file, MiB.", rich_help_panel=_LIMITS)] = 64,
    max_video_seconds: Annotated[float, typer.Option(help="Longest video, seconds.", rich_help_panel=_LIMITS)] = 600,
    max_video_frames: Annotated[int, typer.Option(help="Most frames of one video.", rich_help_panel=_LIMITS)] = 16,
    max_text_chars: Annotated[
        int,
        typer.Option(help="Longest text, characters; the model's token limit comes on top.", rich_help_panel=_LIMITS),
    ] = 400_000,
    max_queued_requests: Annotated[
        int, typer.Option(help="Most requests under way at once; more get 429.", rich_help_panel=_LOAD)
    ] = 256,
    max_queued_items: Annotated[
        int, typer.Option(help="Most items under way at once; more get 429.", rich_help_panel=_LOAD)
    ] = 4096,
    request_timeout: Annotated[
        float, typer.Option(help="Seconds to embed a request; then 504.", rich_help_panel=_LOAD)
    ] = 120,
    body_timeout: Annotated[
        float, typer.Option(help="Seconds for a request's body to arrive; then 408.", rich_help_panel=_LOAD)
    ] = 60,
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds for requests under way when told to stop.", rich_help_panel=_LOAD)
    ] = 30,
    cache_mb: Annotated[
        float, typer.Option(help="Memory for results, MiB; 0 keeps none.", min=0, rich_help_panel=_CACHE)
    ] = 256,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps results across restarts.", rich_help_panel=_CACHE)
    ] = None,
    cache_disk_gb: Annotated[float, typer.Option(help="Disk for results, GiB.", rich_help_panel=_CACHE)] = 4,
    batch_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of files and batches; without it neither is offered.", rich_help_panel=_BATCHES),
    ] = None,
    max_file_mb: Annotated[float, typer.Option(help="Longest uploaded file, MiB.", rich_help_panel=_BATCHES)] = 200,
    max_stored_gb: Annotated[float, typer.Option(help="All files together, GiB.", rich_help_panel=_BATCHES)] = 10,
    batch_concurrency: Annotated[int, typer.Option(help="Lines of batches run at once.", rich_help_panel=_BATCHES)] = 8,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.", rich_help_panel=_WATCH)] = "info",
    log_format: Annotated[LogFormat, typer.Option(help="Lines of text, or of JSON.", rich_help_panel=_WATCH)] = "text",
    otel: Annotated[
        bool,
        typer.Option("--otel", help="Send traces by OpenTelemetry (OTEL_... variables).", rich_help_panel=_WATCH),
    ] = False,
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
    from mllm_embed_serving.access.keys import KeyLimits, all_keys
    from mllm_embed_serving.engine import load_embedder
    from mllm_embed_serving.runner import DemoOptions, RunOptions
    from mllm_embed_serving.settings import ServerSettings

    limits = KeyLimits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=concurrent_requests,
    )
    settings = ServerSettings(
        adapters=_adapters(adapter or ()),
        adapters_folder=adapters_dir,
        max_adapters=max_adapters,
        max_adapter_rank=max_adapter_rank,
        api_keys=all_keys(api_key or (), api_keys_file, limits, admins=admin_key or ()),
        limits=limits,
        allow_url_media=allow_url_media,
        token_ids=token_ids,
        max_body_bytes=int(max_body_mb * 2**20),
        max_items=max_items,
        max_images=max_images,
        max_image_bytes=int(max_image_mb * 2**20),
        max_image_pixels=int(max_image_megapixels * 1e6),
        max_request_pixels=int(max_request_megapixels * 1e6),
        max_video_bytes=int(max_video_mb * 2**20),
        max_video_seconds=max_video_seconds,
        max_video_frames=max_video_frames,
        max_text_chars=max_text_chars,
        max_queued_requests=max_queued_requests,
        max_queued_items=max_queued_items,
        request_timeout_s=request_timeout,
        body_timeout_s=body_timeout,
        drain_timeout_s=drain_timeout,
        cache_bytes=int(cache_mb * 2**20) or None,
        cache_folder=cache_dir,
        cache_disk_bytes=int(cache_disk_gb * 2**30),
        batch_folder=batch_dir,
        max_file_bytes=int(max_file_mb * 2**20),
        max_stored_bytes=int(max_stored_gb * 2**30),
        batch_concurrency=batch_concurrency,
        otel=otel,
        precision=precision,
    )
    set_up(log_level, log_format)
    load = partial(load_embedder, model, backend, settings, max_tokens)
    playground = DemoOptions(demo_host, demo_port, gallery, api_key[0] if api_key else None)
    options = RunOptions(model, load, settings, host, port, playground if demo else None)
    _run_and_leave(options)


def _adapters(given: Sequence[str]) -> dict[str, Path]:
    """Read NAME=DIR options."""
    adapters: dict[str, Path] = {}
    for text in given:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise InvalidSettings(f"--adapter must be NAME=DIR, but is {text!r}")
        if name in adapters:
            raise InvalidSettings(f"--adapter names {name!r} twice")
        adapters[name] = Path(folder)
    return adapters


def _run_and_leave(options: RunOptions) -> NoReturn:
    from rich.console import Console

    from mllm_embed_serving.runner import run

    run(options, Console())
    # Everything of ours has stopped; the interpreter's own teardown of torch and an engine would take seconds more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
