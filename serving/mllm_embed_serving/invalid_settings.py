"""The error of what an operator sets: it stops a server from starting, and no request can cause it."""

from __future__ import annotations

from mllm_embed.errors import MllmEmbedError


class InvalidSettings(MllmEmbedError):
    """A setting outside its range, or a file of settings that cannot be used."""
