"""The options of `mllm-embed serve`: their types, and what its help says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm_embed.backends import BackendName
from mllm_embed_serving.logs import LogFormat as Format
from mllm_embed_serving.token_ids import TokenIds as Policy

_ADAPTERS = "Adapters"
_ACCESS = "Keys and rates"
_LIMITS = "Limits"
_LOAD = "Load"
_CACHE = "Cache"
_BATCHES = "Batches"
_WATCH = "Logs and traces"
_DEMO = "Playground"

Model = Annotated[str, typer.Argument(help="A model directory, a hub name, or the built-in model.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)]
Backend = Annotated[BackendName, typer.Option(help="Engine; auto takes vLLM where it is installed, else transformers.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")]
MaxTokens = Annotated[
    int | None, typer.Option(help="Lower the model's token limit, to save the engine's memory.", min=1)
]
AllowUrlMedia = Annotated[
    bool, typer.Option("--allow-url-media", help="Fetch media from public http(s) URLs that requests name.")
]
MediaDomain = Annotated[
    list[str] | None,
    typer.Option(help="Fetch media from this domain and those below it only; give it several times for several."),
]
PrivateMediaHost = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="Fetch media from this place although its address is private."),
]
TokenIds = Annotated[
    Policy, typer.Option(help="What arrays of token ids are: the model's own, OpenAI's cl100k, or refused.")
]

Adapter = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DIR",
        help="Also serve the model with this LoRA adapter, under a name of its own; give it several times for several.",
        rich_help_panel=_ADAPTERS,
    ),
]
AdaptersDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder from which admins may load adapters while the server runs; without it nobody may.",
        rich_help_panel=_ADAPTERS,
    ),
]
MaxAdapters = Annotated[
    int, typer.Option(help="Most adapters at once, if admins may load some.", min=1, rich_help_panel=_ADAPTERS)
]
MaxAdapterRank = Annotated[
    int, typer.Option(help="Highest rank of an adapter that is loaded later.", min=1, rich_help_panel=_ADAPTERS)
]

AdminKey = Annotated[
    list[str] | None,
    typer.Option(
        envvar="MLLM_EMBED_ADMIN_KEY",
        help="Like an API key, and may load and unload adapters. Prefer the variable.",
        rich_help_panel=_ACCESS,
    ),
]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        envvar="MLLM_EMBED_API_KEY",
        help="Key that every route but /health asks for; give it several times for several keys (in the variable, "
        "separated by spaces). Prefer the variable: others can see a command line.",
        rich_help_panel=_ACCESS,
    ),
]
ApiKeysFile = Annotated[
    Path | None,
    typer.Option(help="TOML file of hashed keys with limits of their own.", rich_help_panel=_ACCESS),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(help="PEM file of a certificate (and its issuers'): speak https.", rich_help_panel=_ACCESS),
]
TlsKey = Annotated[
    Path | None, typer.Option(help="PEM file of the certificate's private key.", rich_help_panel=_ACCESS)
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin, such as https://example.org, whose pages may call the API from a browser (CORS); give it "
        "several times for several, * for all. Without it none may.",
        rich_help_panel=_ACCESS,
    ),
]
RequestsPerMinute = Annotated[
    int | None, typer.Option(help="Requests per minute and key.", min=1, rich_help_panel=_ACCESS)
]
TokensPerMinute = Annotated[
    int | None, typer.Option(help="Tokens per minute and key, visual ones too.", min=1, rich_help_panel=_ACCESS)
]
ConcurrentRequests = Annotated[
    int | None, typer.Option(help="Requests under way at once, per key.", min=1, rich_help_panel=_ACCESS)
]

Demo = Annotated[bool, typer.Option("--demo/--no-demo", help="Also start the playground.", rich_help_panel=_DEMO)]
DemoHost = Annotated[str, typer.Option(help="Address of the playground, which asks for no key.", rich_help_panel=_DEMO)]
DemoPort = Annotated[int, typer.Option(help="Port of the playground.", min=1, max=65535, rich_help_panel=_DEMO)]
Gallery = Annotated[Path | None, typer.Option(help="Folder of pictures for the playground.", rich_help_panel=_DEMO)]

MaxBodyMb = Annotated[float, typer.Option(help="Longest request body, MiB.", rich_help_panel=_LIMITS)]
MaxItems = Annotated[int, typer.Option(help="Most items per request.", rich_help_panel=_LIMITS)]
MaxImages = Annotated[int, typer.Option(help="Most images per request.", rich_help_panel=_LIMITS)]
MaxImageMb = Annotated[float, typer.Option(help="Largest image file, MiB.", rich_help_panel=_LIMITS)]
MaxImageMegapixels = Annotated[float, typer.Option(help="Largest image, megapixels.", rich_help_panel=_LIMITS)]
MaxRequestMegapixels = Annotated[float, typer.Option(help="Most megapixels per request.", rich_help_panel=_LIMITS)]
MaxVideoMb = Annotated[float, typer.Option(help="Largest video file, MiB.", rich_help_panel=_LIMITS)]
MaxVideoSeconds = Annotated[float, typer.Option(help="Longest video, seconds.", rich_help_panel=_LIMITS)]
MaxVideoFrames = Annotated[int, typer.Option(help="Most frames of one video.", rich_help_panel=_LIMITS)]
MaxTextChars = Annotated[
    int,
    typer.Option(help="Longest text, characters; the model's token limit comes on top.", rich_help_panel=_LIMITS),
]
MaxMultivectorNumbers = Annotated[
    int, typer.Option(help="Most numbers in the multivectors of a request.", rich_help_panel=_LIMITS)
]

MaxQueuedRequests = Annotated[
    int, typer.Option(help="Most requests under way at once; more get 429.", rich_help_panel=_LOAD)
]
MaxQueuedItems = Annotated[int, typer.Option(help="Most items under way at once; more get 429.", rich_help_panel=_LOAD)]
RequestTimeout = Annotated[float, typer.Option(help="Seconds to embed a request; then 504.", rich_help_panel=_LOAD)]
BodyTimeout = Annotated[
    float, typer.Option(help="Seconds for a request's body to arrive; then 408.", rich_help_panel=_LOAD)
]
DrainTimeout = Annotated[
    float, typer.Option(help="Seconds for requests under way when told to stop.", rich_help_panel=_LOAD)
]

CacheMb = Annotated[float, typer.Option(help="Memory for results, MiB; 0 keeps none.", min=0, rich_help_panel=_CACHE)]
CacheDir = Annotated[
    Path | None, typer.Option(help="Folder that keeps results across restarts.", rich_help_panel=_CACHE)
]
CacheDiskGb = Annotated[float, typer.Option(help="Disk for results, GiB.", rich_help_panel=_CACHE)]

BatchDir = Annotated[
    Path | None,
    typer.Option(help="Folder of files and batches; without it neither is offered.", rich_help_panel=_BATCHES),
]
MaxFileMb = Annotated[float, typer.Option(help="Longest uploaded file, MiB.", rich_help_panel=_BATCHES)]
MaxStoredGb = Annotated[float, typer.Option(help="All files together, GiB.", rich_help_panel=_BATCHES)]
BatchConcurrency = Annotated[int, typer.Option(help="Lines of batches run at once.", rich_help_panel=_BATCHES)]

LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.", rich_help_panel=_WATCH)]
LogFormat = Annotated[Format, typer.Option(help="Lines of text, or of JSON.", rich_help_panel=_WATCH)]
Otel = Annotated[
    bool,
    typer.Option("--otel", help="Send traces by OpenTelemetry (OTEL_... variables).", rich_help_panel=_WATCH),
]
