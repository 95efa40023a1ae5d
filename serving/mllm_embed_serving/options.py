"""The options of `mllm-embed serve`: their types and defaults, and what its help says of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
import typer.main
from typer.exceptions import TyperException

from mllm_embed.backends import BackendName
from mllm_embed.model_dir import BUILT_IN
from mllm_embed_serving.access.keys import KeyLimits, all_keys
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.logs import LogFormat
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.tls import Tls
from mllm_embed_serving.token_ids import TokenIds

_ADAPTERS = "Adapters"
_ACCESS = "Keys and rates"
_LIMITS = "Limits"
_LOAD = "Load"
_CACHE = "Cache"
_BATCHES = "Batches"
_WATCH = "Logs and traces"
_DEMO = "Playground"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What a user asks of `mllm-embed serve`, in the units of the command line."""

    model: Annotated[str, typer.Argument(help="A model directory, a hub name, or the built-in model.")] = BUILT_IN
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000
    backend: Annotated[
        BackendName, typer.Option(help="Engine; auto takes vLLM where it is installed, else transformers.")
    ] = "auto"
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")] = "float32"
    max_tokens: Annotated[
        int | None, typer.Option(help="Lower the model's token limit, to save the engine's memory.", min=1)
    ] = None
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Also serve the model with this LoRA adapter, under a name of its own; give it several times for "
            "several.",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None
    adapters_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder from which admins may load adapters while the server runs; without it nobody may.",
            rich_help_panel=_ADAPTERS,
        ),
    ] = None
    max_adapters: Annotated[
        int, typer.Option(help="Most adapters at once, if admins may load some.", min=1, rich_help_panel=_ADAPTERS)
    ] = 4
    max_adapter_rank: Annotated[
        int, typer.Option(help="Highest rank of an adapter that is loaded later.", min=1, rich_help_panel=_ADAPTERS)
    ] = 64
    admin_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MLLM_EMBED_ADMIN_KEY",
            help="Like an API key, and may load and unload adapters. Prefer the variable.",
            rich_help_panel=_ACCESS,
        ),
    ] = None
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MLLM_EMBED_API_KEY",
            help="Key that every route but /health asks for; give it several times for several keys (in the variable, "
            "separated by spaces). Prefer the variable: others can see a command line.",
            rich_help_panel=_ACCESS,
        ),
    ] = None
    api_keys_file: Annotated[
        Path | None,
        typer.Option(help="TOML file of hashed keys with limits of their own.", rich_help_panel=_ACCESS),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="PEM file of a certificate (and its issuers'): speak https.", rich_help_panel=_ACCESS),
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate's private key.", rich_help_panel=_ACCESS)
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin, such as https://example.org, whose pages may call the API from a browser (CORS); give it "
            "several times for several, * for all. Without it none may.",
            rich_help_panel=_ACCESS,
        ),
    ] = None
    requests_per_minute: Annotated[
        int | None, typer.Option(help="Requests per minute and key.", min=1, rich_help_panel=_ACCESS)
    ] = None
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Tokens per minute and key, visual ones too.", min=1, rich_help_panel=_ACCESS)
    ] = None
    concurrent_requests: Annotated[
        int | None, typer.Option(help="Requests under way at once, per key.", min=1, rich_help_panel=_ACCESS)
    ] = None
    allow_url_media: Annotated[
        bool, typer.Option("--allow-url-media", help="Fetch media from public http(s) URLs that requests name.")
    ] = False
    media_domain: Annotated[
        list[str] | None,
        typer.Option(help="Fetch media from this domain and those below it only; give it several times for several."),
    ] = None
    private_media_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Fetch media from this place although its address is private."),
    ] = None
    token_ids: Annotated[
        TokenIds, typer.Option(help="What arrays of token ids are: the model's own, OpenAI's cl100k, or refused.")
    ] = "native"
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Also start the playground.", rich_help_panel=_DEMO)
    ] = False
    demo_host: Annotated[
        str, typer.Option(help="Address of the playground, which asks for no key.", rich_help_panel=_DEMO)
    ] = "127.0.0.1"
    demo_port: Annotated[int, typer.Option(help="Port of the playground.", min=1, max=65535, rich_help_panel=_DEMO)] = (
        7860
    )
    gallery: Annotated[
        Path | None, typer.Option(help="Folder of pictures for the playground.", rich_help_panel=_DEMO)
    ] = None
    max_body_mb: Annotated[float, typer.Option(help="Longest request body, MiB.", rich_help_panel=_LIMITS)] = 32
    max_items: Annotated[int, typer.Option(help="Most items per request.", rich_help_panel=_LIMITS)] = 2048
    max_images: Annotated[int, typer.Option(help="Most images per request.", rich_help_panel=_LIMITS)] = 64
    max_image_mb: Annotated[float, typer.Option(help="Largest image file, MiB.", rich_help_panel=_LIMITS)] = 20
    max_image_megapixels: Annotated[float, typer.Option(help="Largest image, megapixels.", rich_help_panel=_LIMITS)] = (
        40
    )
    max_request_megapixels: Annotated[
        float, typer.Option(help="Most megapixels per request.", rich_help_panel=_LIMITS)
    ] = 160
    max_video_mb: Annotated[float, typer.Option(help="Largest video file, MiB.", rich_help_panel=_LIMITS)] = 64
    max_video_seconds: Annotated[float, typer.Option(help="Longest video, seconds.", rich_help_panel=_LIMITS)] = 600
    max_video_frames: Annotated[int, typer.Option(help="Most frames of one video.", rich_help_panel=_LIMITS)] = 16
    max_document_mb: Annotated[float, typer.Option(help="Largest PDF, MiB.", rich_help_panel=_LIMITS)] = 64
    max_document_pages: Annotated[int, typer.Option(help="Most pages of a PDF.", rich_help_panel=_LIMITS)] = 1000
    max_text_chars: Annotated[
        int,
        typer.Option(help="Longest text, characters; the model's token limit comes on top.", rich_help_panel=_LIMITS),
    ] = 400_000
    max_request_tokens: Annotated[
        int, typer.Option(help="Most tokens of all texts of a request.", rich_help_panel=_LIMITS)
    ] = 300_000
    max_multivector_numbers: Annotated[
        int, typer.Option(help="Most numbers in the multivectors of a request.", rich_help_panel=_LIMITS)
    ] = 1_000_000
    max_queued_requests: Annotated[
        int, typer.Option(help="Most requests under way at once; more get 429.", rich_help_panel=_LOAD)
    ] = 256
    max_queued_items: Annotated[
        int, typer.Option(help="Most items under way at once; more get 429.", rich_help_panel=_LOAD)
    ] = 4096
    request_timeout: Annotated[
        float, typer.Option(help="Seconds to embed a request; then 504.", rich_help_panel=_LOAD)
    ] = 120
    body_timeout: Annotated[
        float, typer.Option(help="Seconds for a request's body to arrive; then 408.", rich_help_panel=_LOAD)
    ] = 60
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds for requests under way when told to stop.", rich_help_panel=_LOAD)
    ] = 30
    cache_mb: Annotated[
        float, typer.Option(help="Memory for results, MiB; 0 keeps none.", min=0, rich_help_panel=_CACHE)
    ] = 256
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps results across restarts.", rich_help_panel=_CACHE)
    ] = None
    cache_disk_gb: Annotated[float, typer.Option(help="Disk for results, GiB.", rich_help_panel=_CACHE)] = 4
    batch_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of files and batches; without it neither is offered.", rich_help_panel=_BATCHES),
    ] = None
    max_file_mb: Annotated[float, typer.Option(help="Longest uploaded file, MiB.", rich_help_panel=_BATCHES)] = 200
    max_stored_gb: Annotated[float, typer.Option(help="All files together, GiB.", rich_help_panel=_BATCHES)] = 10
    batch_concurrency: Annotated[int, typer.Option(help="Lines of batches run at once.", rich_help_panel=_BATCHES)] = 8
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.", rich_help_panel=_WATCH)] = "info"
    log_format: Annotated[LogFormat, typer.Option(help="Lines of text, or of JSON.", rich_help_panel=_WATCH)] = "text"
    otel: Annotated[
        bool,
        typer.Option("--otel", help="Send traces by OpenTelemetry (OTEL_... variables).", rich_help_panel=_WATCH),
    ] = False

    def settings(self) -> ServerSettings:
        """Return the server's settings, in its own units.

        Raises:
            InvalidSettings: options that contradict each other, or files that cannot be used.
        """
        limits = KeyLimits(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            concurrent_requests=self.concurrent_requests,
        )
        unchanged: dict[str, Any] = {name: getattr(self, name) for name in _UNCHANGED}
        return ServerSettings(
            **unchanged,
            adapters=_adapters(self.adapter or ()),
            adapters_folder=self.adapters_dir,
            api_keys=all_keys(self.api_key or (), self.api_keys_file, limits, admins=self.admin_key or ()),
            tls=Tls.of(self.tls_cert, self.tls_key),
            allowed_origins=tuple(self.allow_origin or ()),
            limits=limits,
            media_domains=tuple(self.media_domain or ()),
            private_media_hosts=tuple(self.private_media_host or ()),
            max_body_bytes=_mebibytes(self.max_body_mb),
            max_image_bytes=_mebibytes(self.max_image_mb),
            max_image_pixels=_megapixels(self.max_image_megapixels),
            max_request_pixels=_megapixels(self.max_request_megapixels),
            max_video_bytes=_mebibytes(self.max_video_mb),
            max_document_bytes=_mebibytes(self.max_document_mb),
            request_timeout_s=self.request_timeout,
            body_timeout_s=self.body_timeout,
            drain_timeout_s=self.drain_timeout,
            cache_bytes=_mebibytes(self.cache_mb) or None,
            cache_folder=self.cache_dir,
            cache_disk_bytes=_gibibytes(self.cache_disk_gb),
            batch_folder=self.batch_dir,
            max_file_bytes=_mebibytes(self.max_file_mb),
            max_stored_bytes=_gibibytes(self.max_stored_gb),
        )


_UNCHANGED = {field.name for field in fields(ServerSettings)} & {field.name for field in fields(ServeOptions)}
"""Options that are settings as they are."""


def takes_options(run: Callable[[ServeOptions], None]) -> Callable[..., None]:
    """Let a command be called with options one by one, which typer reads from its signature."""

    @wraps(run)
    def command(**given: Any) -> None:
        run(ServeOptions(**given))

    hints = get_type_hints(ServeOptions, include_extras=True)
    signature = inspect.signature(ServeOptions)
    parameters = [each.replace(annotation=hints[each.name]) for each in signature.parameters.values()]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    command.__annotations__ = hints
    return command


def parse(words: Sequence[str]) -> ServeOptions:
    """Read the words that stand after `mllm-embed serve`, as the command does.

    Raises:
        InvalidSettings: an option is unknown, or its value is of a wrong type or out of range.
    """
    alone = typer.Typer(add_completion=False)
    alone.command()(takes_options(lambda _: None))
    try:
        context = typer.main.get_command(alone).make_context("serve", list(words))
    except TyperException as error:
        raise InvalidSettings(error.format_message()) from None
    return ServeOptions(**context.params)


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


def _mebibytes(number: float) -> int:
    return int(number * 2**20)


def _gibibytes(number: float) -> int:
    return int(number * 2**30)


def _megapixels(number: float) -> int:
    return int(number * 1e6)
