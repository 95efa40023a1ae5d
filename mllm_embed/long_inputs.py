"""What is too long for one vector: the pages of a document, the windows of a text.

Each is embedded part by part, in bounded memory, and gives one vector per part. What then stands for the whole is the
caller's explicit choice: `mean`, one vector, or `best`, the part that fits a query best, when scores are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.documents import pages
from mllm_embed.errors import InputError
from mllm_embed.types import EmbedInput
from mllm_embed.vectors import finish
from mllm_embed.windows import Windows

if TYPE_CHECKING:
    from mllm_embed.embedder import Embedder
    from mllm_embed.media import MediaPolicy

_AT_ONCE = 16
"""Parts whose pictures and prompts are in memory together."""


def embed_document(
    embedder: Embedder, source: bytes | str | Path, *, dpi: int = 144, policy: MediaPolicy | None = None, **options: Any
) -> NDArray[np.float32]:
    """Embed a PDF page by page; only a few of its pages are in memory at a time.

    Args:
        embedder: the model.
        source: encoded bytes, a data URI, or a path; no URL.
        dpi: dots per inch at which pages are drawn.
        policy: limits of the document; None takes those for local use. Pages are drawn under the embedder's own.
        options: those of `Embedder.embed`.

    Returns:
        float32 unit vectors, shape [pages, D].

    Raises:
        InputError: the document cannot be opened, or a page cannot be embedded: its `index` says which, from 0.
    """
    return _stream(embedder, map(EmbedInput.of, pages(source, dpi=dpi, policy=policy)), options)


def embed_text(embedder: Embedder, text: str, how: Windows | None = None, **options: Any) -> NDArray[np.float32]:
    """Embed a text of any length window by window.

    Args:
        embedder: the model.
        text: the text; one that fits into a window is one window.
        how: size and overlap of windows in the model's own tokens, and a title for each; None takes the defaults.
        options: those of `Embedder.embed`.

    Returns:
        float32 unit vectors, shape [windows, D].

    Raises:
        InvalidInput: the text is empty, or windows have no room for more than title and overlap.
    """
    wording = {name: options[name] for name in ("task", "role", "instruction") if name in options}
    windows = embedder.windows(text, how if how is not None else Windows(), **wording)
    return _stream(embedder, map(EmbedInput.of, windows), options)


def mean(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one unit vector for all parts: their mean, normalised.

    Args:
        parts: unit vectors, shape [parts, D].

    Returns:
        float32, shape [D].

    Raises:
        BackendError: the parts cancel each other out.
    """
    return finish(np.asarray(parts).mean(axis=0))


def best(query: NDArray[np.float32], wholes: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], list[int]]:
    """Score wholes by their best part, and say which part that is.

    Args:
        query: unit vector, shape [D].
        wholes: of each document or text the unit vectors of its parts, shape [parts, D].

    Returns:
        the cosine of the query and the best part of each whole, float32, shape [wholes]; the index of that part.
    """
    cosines = [parts @ query for parts in wholes]
    return np.array([one.max() for one in cosines], dtype=np.float32), [int(one.argmax()) for one in cosines]


def _stream(embedder: Embedder, items: Iterator[EmbedInput], options: dict[str, Any]) -> NDArray[np.float32]:
    """Embed items a few at a time; an error says which of all it was."""
    vectors: list[NDArray[np.float32]] = []
    while some := list(islice(items, _AT_ONCE)):
        try:
            vectors.append(embedder.embed(some, **options))
        except InputError as error:
            if error.index is not None:
                error.index += _AT_ONCE * len(vectors)
            raise
    return np.concatenate(vectors)
