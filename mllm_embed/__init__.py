"""Universal multimodal embeddings: one vector space for text, images and any mix of them, steered by an instruction.

    from mllm_embed import Embedder, Image

    with Embedder.load("mllm-embed-mini") as embedder:
        vectors = embedder.embed(["a red circle", Image("circle.png"), ("the same in blue", Image("circle.png"))])
        scores = vectors @ vectors.T

Everything else is found in the modules: `tasks`, `media`, `vectors`, `prompts`, `model_dir`, `toy_shapes`, ...
"""

from __future__ import annotations

from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendError, InputError, MllmEmbedError, ModelError
from mllm_embed.media import MediaPolicy
from mllm_embed.types import Document, Embedding, EmbedInput, Image, Page, Region, Text, Video

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Document",
    "EmbedInput",
    "Embedder",
    "Embedding",
    "Image",
    "InputError",
    "MediaPolicy",
    "MllmEmbedError",
    "ModelError",
    "Page",
    "Region",
    "Text",
    "Video",
    "__version__",
]
