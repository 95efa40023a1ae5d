"""What an operator can set: one frozen value, documented field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from mllm_embed.fetch import HostRules
from mllm_embed.media import MediaPolicy
from mllm_embed_serving.access.keys import ApiKey, KeyLimits
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.tls import Tls
from mllm_embed_serving.token_ids import TokenIds

_PLACE = re.compile(r"[^/\s]+:[0-9]+")
_ORIGIN = re.compile(r"\*|https?://[^/\s]+")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and switches of one server; the defaults are safe on a public port behind an API key."""

    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters that are served from the start: their names, and their folders."""
    adapters_folder: Path | None = None
    """Where admins may load adapters from while the server runs; None lets nobody."""
    max_adapters: int = 4
    """Most adapters at once, where admins may load some."""
    max_adapter_rank: int = 64
    """Highest rank of one that is loaded while the server runs: the engine makes room for it when it starts."""
    api_keys: tuple[ApiKey, ...] = ()
    """Keys of which every route but /health asks for one (`Authorization: Bearer KEY`); none if there are none."""
    tls: Tls | None = None
    """Certificate and key of a server that speaks https; None speaks http."""
    allowed_origins: tuple[str, ...] = ()
    """Origins (`https://host`) whose pages may call the API from a browser; none by default, `*` for all."""
    limits: KeyLimits = field(default_factory=KeyLimits)
    """What all callers together may ask for where there are no keys; keys carry limits of their own."""
    allow_url_media: bool = False
    """Fetch http(s) URLs that requests name; private and loopback addresses stay refused either way."""
    media_domains: tuple[str, ...] = ()
    """Domains that media are fetched from, subdomains too; every public host if there are none."""
    private_media_hosts: tuple[str, ...] = ()
    """`HOST:PORT` places that media are fetched from although their addresses are private."""
    token_ids: TokenIds = "native"
    """What arrays of token ids are: the model's own, OpenAI's cl100k, or refused."""
    max_body_bytes: int = 32 * 2**20
    """Longest request body, in bytes; longer ones are refused before any JSON is parsed."""
    max_items: int = 2048
    """Most items (vectors) per request."""
    max_images: int = 64
    """Most images per request, over all items: frames of videos, close-ups of regions and pages of documents too."""
    max_image_bytes: int = 20 * 2**20
    """Largest encoded image, in bytes."""
    max_image_pixels: int = 40_000_000
    """Largest image, in pixels."""
    max_request_pixels: int = 160_000_000
    """Most pixels of all images of a request together; a decoded pixel takes three bytes."""
    max_video_bytes: int = 64 * 2**20
    """Largest encoded video, in bytes; one that is sent in the request has to fit into its body too."""
    max_video_seconds: float = 600.0
    """Longest video, in seconds."""
    max_video_frames: int = 16
    """Most frames of one video."""
    max_document_bytes: int = 64 * 2**20
    """Largest encoded PDF, in bytes; one that is sent in the request has to fit into its body too."""
    max_document_pages: int = 1000
    """Most pages of a PDF, whichever of them are read."""
    max_text_chars: int = 400_000
    """Longest single text or instruction, in characters; the model's own token limit comes on top."""
    max_request_tokens: int = 300_000
    """Most tokens of all texts of a request together."""
    max_multivector_numbers: int = 1_000_000
    """Most numbers that the multivectors of a request may hold together."""
    max_queued_requests: int = 256
    """Most requests under way at once, from the first byte of their bodies; more are answered 429."""
    max_queued_items: int = 4096
    """Most items that wait for the engine or are in it; a request for which there is no room is answered 429."""
    request_timeout_s: float = 120.0
    """Time to embed a request, in seconds, from when its body has arrived."""
    body_timeout_s: float = 60.0
    """Time for a request's body to arrive, in seconds."""
    drain_timeout_s: float = 30.0
    """Time that requests under way get to be embedded when the server is told to stop, in seconds; new ones get 503."""
    cache_bytes: int | None = 256 * 2**20
    """Memory for results, in bytes; None keeps none."""
    cache_folder: Path | None = None
    """Where results are kept across restarts; None keeps them in memory only."""
    cache_disk_bytes: int = 4 * 2**30
    """Disk for results, in bytes."""
    otel: bool = False
    """Send traces by OpenTelemetry, set up by its standard variables."""
    precision: str = ""
    """The engine's number format: vectors of another one are not taken from the disk."""
    batch_folder: Path | None = None
    """Where files and batches are kept; None offers neither."""
    max_file_bytes: int = 200 * 2**20
    """Longest uploaded file, in bytes."""
    max_stored_bytes: int = 10 * 2**30
    """Most bytes of all files together."""
    batch_concurrency: int = 8
    """Lines of batches that are run at once."""
    media_timeout_s: float = 10.0
    """Time for one URL to deliver, in seconds, redirects included."""
    shutdown_grace_s: int = 3
    """Time that answers then get to be sent, in seconds."""

    def __post_init__(self) -> None:
        for known in fields(self):
            value = getattr(self, known.name)
            if known.type in ("int", "float") and not value > 0:
                raise InvalidSettings(f"{known.name} must be greater than 0, but is {value}")
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidSettings(f"--allow-origin must be https://HOST[:PORT], http://... or *, but is {origin!r}")
        if (self.media_domains or self.private_media_hosts) and not self.allow_url_media:
            raise InvalidSettings("--media-domain and --private-media-host go with --allow-url-media")
        for place in self.private_media_hosts:
            if not _PLACE.fullmatch(place):
                raise InvalidSettings(f"--private-media-host must be HOST:PORT, but is {place!r}")
        if self.adapters_folder is not None and not any(key.admin for key in self.api_keys):
            raise InvalidSettings("--adapters-dir needs an admin's key (--admin-key): no other may load adapters")

    def media_policy(self) -> MediaPolicy:
        """Return the media limits for an embedder that answers the network: never a file, never a private address."""
        return MediaPolicy(
            allow_urls=self.allow_url_media,
            allow_private_addresses=False,
            hosts=HostRules(self.media_domains, self.private_media_hosts),
            allow_paths=False,
            max_bytes=self.max_image_bytes,
            max_pixels=self.max_image_pixels,
            max_video_bytes=self.max_video_bytes,
            max_video_seconds=self.max_video_seconds,
            max_video_decode_s=self.request_timeout_s,
            max_document_bytes=self.max_document_bytes,
            max_pages=self.max_document_pages,
            max_total_pixels=self.max_request_pixels,
            timeout_s=self.media_timeout_s,
        )
