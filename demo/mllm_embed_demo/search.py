"""One playground: a server, a gallery, its index, and the searches in it. Knows nothing of Gradio."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from mllm_embed.errors import InvalidInput, MllmEmbedError
from mllm_embed.tasks import Task, get_task
from mllm_embed_demo.index import Index, Progress, build_index

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mllm_embed_demo.client import EmbeddingsClient, WireItem
    from mllm_embed_demo.pictures import Payload, Picture

KEPT_UPLOADS = 32
WORDS = 8
THUMBNAIL_SIDE = 360


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is searched for: a text, a picture, or both; `dimensions` None means the full width."""

    text: str = ""
    picture: Payload | None = None
    instruction: str
    dimensions: int | None = None

    def __post_init__(self) -> None:
        if not self.text and self.picture is None:
            raise InvalidInput("Nothing to search for yet: type a text, add a picture, or both.")

    @property
    def item(self) -> WireItem:
        """The query as it is sent."""
        if self.picture is None:
            return self.text
        return {"text": self.text, "image": self.picture.uri} if self.text else {"image": self.picture.uri}


@dataclass(frozen=True, slots=True)
class Hit:
    """A picture and its cosine with the query."""

    picture: Picture
    score: float


@dataclass(frozen=True, slots=True)
class Result:
    """A finished search.

    Attributes:
        query: what was searched for.
        vector: the query's vector, float32, shape [d].
        hits: every picture of the index, best first.
        index: what was searched.
        milliseconds: time that the API took for the query, the way there and back included.
    """

    query: Query
    vector: NDArray[np.float32]
    hits: tuple[Hit, ...]
    index: Index
    milliseconds: float


def automatic_task(*, text: bool, picture: bool) -> Task:
    """Return the built-in task that fits what the query consists of."""
    if text and picture:
        return get_task("composed")
    return get_task("image-to-image" if picture else "text-to-image")


class Playground:
    """Holds one gallery against one server; safe to use from several threads.

    Args:
        client: the server.
        pictures: the gallery.
        folder: where gallery vectors are cached.

    Attributes:
        embedded: how many pictures have a vector, and how many there are.
    """

    def __init__(self, client: EmbeddingsClient, pictures: Sequence[Picture], folder: Path) -> None:
        self.client = client
        self.pictures = tuple(pictures)
        self._folder = folder
        self._by_key = {picture.key: picture for picture in pictures}
        self.embedded = (0, len(self.pictures))
        self._index: Index | None = None
        self._building = Lock()
        self._uploading = Lock()
        self._uploads: OrderedDict[str, Payload] = OrderedDict()
        self.thumbnail = lru_cache(maxsize=2048)(self._thumbnail)

    @property
    def building(self) -> bool:
        """Whether the index is being made."""
        return self._building.locked()

    @property
    def ready(self) -> bool:
        """Whether the index has been made."""
        return self._index is not None

    def index(self, watch: Progress | None = None) -> Index:
        """Return the index for the model that the server runs now; another model than before makes it anew.

        Args:
            watch: told how far that is, besides `embedded`.

        Raises:
            BackendUnavailable: the API does not answer.
            ApiRefused: the API refuses.
            MllmEmbedError: no picture of the gallery could be embedded.
        """

        def note(done: int, total: int) -> None:
            self.embedded = (done, total)
            if watch is not None:
                watch(done, total)

        card = self.client.card()
        with self._building:
            if self._index is None or self._index.card != card:
                index = build_index(self.client, card, self.pictures, self._folder, note)
                if not index.pictures:
                    raise MllmEmbedError("no picture of the gallery could be embedded: " + "; ".join(index.skipped[:3]))
                self._index = index
            return self._index

    def search(self, query: Query) -> Result:
        """Rank the gallery by cosine with the query; raises what `index` and `EmbeddingsClient.embed` raise."""
        index = self.index()
        start = time.perf_counter()
        [vector] = self.client.embed(
            index.card.name, [query.item], instruction=query.instruction, dimensions=query.dimensions
        )
        milliseconds = (time.perf_counter() - start) * 1000
        scores = index.scores(vector)
        hits = tuple(Hit(index.pictures[row], float(scores[row])) for row in np.argsort(-scores, kind="stable"))
        if query.picture is not None:
            self._remember(query.picture)
        return Result(query, vector, hits, index, milliseconds)

    def words(self, query: Query) -> dict[str, float]:
        """Return the words that the model reads in a query and their weights; none where the server gives none."""
        try:
            return self.client.words(self.index().card.name, query.item, instruction=query.instruction, most=WORDS)
        except MllmEmbedError:
            return {}

    def payload(self, key: str) -> Payload | None:
        """Return the picture of that name as it is sent to the API: one of the gallery or a recent query's."""
        with self._uploading:
            if key in self._uploads:
                return self._uploads[key]
        picture = self._by_key.get(key)
        return picture.payload() if picture is not None else None

    def picture(self, key: str) -> Picture | None:
        """Return the gallery's picture of that name."""
        return self._by_key.get(key)

    def find(self, file_name: str) -> Picture | None:
        """Return the picture with that file name."""
        return next((picture for picture in self.pictures if picture.path.name == file_name), None)

    def _thumbnail(self, key: str) -> bytes | None:
        picture = self._by_key.get(key)
        return picture.thumbnail(THUMBNAIL_SIDE) if picture is not None else None

    def _remember(self, payload: Payload) -> None:
        """Keep a query's picture for a while, so that the snippets can fetch it."""
        with self._uploading:
            self._uploads[payload.key] = payload
            self._uploads.move_to_end(payload.key)
            while len(self._uploads) > KEPT_UPLOADS:
                self._uploads.popitem(last=False)
