"""`mllm-embed serve`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mllm_embed.model_dir import BUILT_IN
from mllm_embed_serving import options as opt
from mllm_embed_serving.access.keys import KeyLimits, all_keys
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.logs import set_up
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.tls import Tls

if TYPE_CHECKING:
    from mllm_embed_serving.runner import RunOptions


def serve(
    model: opt.Model = BUILT_IN,
    *,
    host: opt.Host = "127.0.0.1",
    port: opt.Port = 8000,
    backend: opt.Backend = "auto",
    precision: opt.Precision = "float32",
    max_tokens: opt.MaxTokens = None,
    adapter: opt.Adapter = None,
    adapters_dir: opt.AdaptersDir = None,
    max_adapters: opt.MaxAdapters = 4,
    max_adapter_rank: opt.MaxAdapterRank = 64,
    admin_key: opt.AdminKey = None,
    api_key: opt.ApiKey = None,
    api_keys_file: opt.ApiKeysFile = None,
    tls_cert: opt.TlsCert = None,
    tls_key: opt.TlsKey = None,
    allow_origin: opt.AllowOrigin = None,
    requests_per_minute: opt.RequestsPerMinute = None,
    tokens_per_minute: opt.TokensPerMinute = None,
    concurrent_requests: opt.ConcurrentRequests = None,
    allow_url_media: opt.AllowUrlMedia = False,
    media_domain: opt.MediaDomain = None,
    private_media_host: opt.PrivateMediaHost = None,
    token_ids: opt.TokenIds = "native",  # noqa: S107  # ids of words, not a secret
    demo: opt.Demo = False,
    demo_host: opt.DemoHost = "127.0.0.1",
    demo_port: opt.DemoPort = 7860,
    gallery: opt.Gallery = None,
    max_body_mb: opt.MaxBodyMb = 32,
    max_items: opt.MaxItems = 2048,
    max_images: opt.MaxImages = 64,
    max_image_mb: opt.MaxImageMb = 20,
    max_image_megapixels: opt.MaxImageMegapixels = 40,
    max_request_megapixels: opt.MaxRequestMegapixels = 160,
    max_video_mb: opt.MaxVideoMb = 64,
    max_video_seconds: opt.MaxVideoSeconds = 600,
    max_video_frames: opt.MaxVideoFrames = 16,
    max_text_chars: opt.MaxTextChars = 400_000,
    max_multivector_numbers: opt.MaxMultivectorNumbers = 1_000_000,
    max_queued_requests: opt.MaxQueuedRequests = 256,
    max_queued_items: opt.MaxQueuedItems = 4096,
    request_timeout: opt.RequestTimeout = 120,
    body_timeout: opt.BodyTimeout = 60,
    drain_timeout: opt.DrainTimeout = 30,
    cache_mb: opt.CacheMb = 256,
    cache_dir: opt.CacheDir = None,
    cache_disk_gb: opt.CacheDiskGb = 4,
    batch_dir: opt.BatchDir = None,
    max_file_mb: opt.MaxFileMb = 200,
    max_stored_gb: opt.MaxStoredGb = 10,
    batch_concurrency: opt.BatchConcurrency = 8,
    log_level: opt.LogLevel = "info",
    log_format: opt.LogFormat = "text",
    otel: opt.Otel = False,
) -> None:
    """Serve a model behind an OpenAI-compatible embeddings API.

    Starts the engine, prints where the API answers and a curl command to paste; Ctrl-C stops everything.

    Examples:
      mllm-embed serve --demo

      mllm-embed serve out/my-model --port 9000 --backend transformers

      mllm-embed serve Qwen/Qwen3-VL-Embedding-2B --precision bfloat16

      MLLM_EMBED_API_KEY=secret mllm-embed serve --host 0.0.0.0
    """
    from mllm_embed_serving.engine import load_embedder  # here, since `serve --help` needs none of their packages
    from mllm_embed_serving.runner import DemoOptions, RunOptions

    limits = _limits(requests_per_minute, tokens_per_minute, concurrent_requests)
    settings = ServerSettings(
        adapters=_adapters(adapter or ()),
        adapters_folder=adapters_dir,
        max_adapters=max_adapters,
        max_adapter_rank=max_adapter_rank,
        api_keys=all_keys(api_key or (), api_keys_file, limits, admins=admin_key or ()),
        tls=Tls.of(tls_cert, tls_key),
        allowed_origins=tuple(allow_origin or ()),
        limits=limits,
        allow_url_media=allow_url_media,
        media_domains=tuple(media_domain or ()),
        private_media_hosts=tuple(private_media_host or ()),
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
        max_multivector_numbers=max_multivector_numbers,
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
    playground = DemoOptions(demo_host, demo_port, gallery, api_key[0] if api_key else None) if demo else None
    _run_and_leave(RunOptions(model, load, settings, host, port, playground))


def _limits(requests: int | None, tokens: int | None, at_once: int | None) -> KeyLimits:
    return KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=at_once)


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
