"""What an operator can set: one frozen value, documented field by field."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mllm_embed.errors import MllmEmbedError
from mllm_embed.media import MediaPolicy
from mllm_embed_serving.token_ids import TokenIds


class InvalidSettings(MllmEmbedError):
    """A setting outside its range."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and switches of one server; the defaults are safe on a public port behind an API key."""

    api_key: str | None = None
    """Key that every route but /health asks for (`Authorization: Bearer KEY`); None asks for none."""
    allow_url_media: bool = False
    """Fetch http(s) URLs that requests name; private and loopback addresses stay refused either way."""
    token_ids: TokenIds = "native"
    """What arrays of token ids are: the model's own, OpenAI's cl100k, or refused."""
    max_body_bytes: int = 32 * 2**20
    """Longest request body, in bytes; longer ones are refused before any JSON is parsed."""
    max_items: int = 2048
    """Most items (vectors) per request."""
    max_images: int = 64
    """Most images per request, over all its items."""
    max_image_bytes: int = 20 * 2**20
    """Largest encoded image, in bytes."""
    max_image_pixels: int = 40_000_000
    """Largest image, in pixels."""
    max_request_pixels: int = 160_000_000
    """Most pixels of all images of a request together; a decoded pixel takes three bytes."""
    max_text_chars: int = 400_000
    """Longest single text or instruction, in characters; the model's own token limit comes on top."""
    media_timeout_s: float = 10.0
    """Time for one URL to deliver, in seconds, redirects included."""
    shutdown_grace_s: int = 3
    """Time that requests under way get to finish when the server stops, in seconds."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", "float") and not value > 0:
                raise InvalidSettings(f"{field.name} must be greater than 0, but is {value}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise InvalidSettings("api_key must be printable ASCII and not empty, since it travels in a header")

    def media_policy(self) -> MediaPolicy:
        """Return the media limits for an embedder that answers the network: never a file, never a private address."""
        return MediaPolicy(
            allow_urls=self.allow_url_media,
            allow_private_addresses=False,
            allow_paths=False,
            max_bytes=self.max_image_bytes,
            max_pixels=self.max_image_pixels,
            max_total_pixels=self.max_request_pixels,
            timeout_s=self.media_timeout_s,
        )
