"""What is sent: texts, pictures or both, in the words of OpenAI and vLLM, so that their servers take it too."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import PIL.Image

Kind = Literal["text", "image", "mixture"]
"""Short texts; pictures; pictures with a text each."""
WORDS = [
    "red",
    "blue",
    "green",
    "small",
    "large",
    "old",
    "new",
    "wooden",
    "round",
    "city",
    "night",
    "cat",
    "dog",
    "boat",
    "tree",
    "house",
    "street",
    "table",
    "photo",
]
"""Of which texts are made."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A stream of requests, the same for the same seed.

    Attributes:
        kind: what an item is.
        items: items per request; pictures go one per request.
        words: words of a text.
        pixels: side of a picture.
        repeated: share of requests that were sent before, from 0 (each is new) to 1.
        seed: begins the stream.
    """

    kind: Kind
    items: int = 1
    words: int = 12
    pixels: int = 224
    repeated: float = 0.0
    seed: int = 0

    def requests(self, model: str) -> Iterator[dict[str, Any]]:
        """Yield request bodies without end."""
        draw = random.Random(self.seed)
        sent: list[dict[str, Any]] = []
        while True:
            if sent and draw.random() < self.repeated:
                yield draw.choice(sent)
                continue
            body = {"model": model, "encoding_format": "base64", **self._content(draw)}
            if self.repeated and len(sent) < 1000:
                sent.append(body)
            yield body

    def _content(self, draw: random.Random) -> dict[str, Any]:
        if self.kind == "text":
            texts = [self._text(draw) for _ in range(self.items)]
            return {"input": texts if self.items > 1 else texts[0]}
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": self._picture(draw)}}]
        if self.kind == "mixture":
            parts.append({"type": "text", "text": self._text(draw)})
        return {"messages": [{"role": "user", "content": parts}]}

    def _text(self, draw: random.Random) -> str:
        return " ".join([*draw.choices(WORDS, k=self.words - 1), str(draw.randrange(10**9))])

    def _picture(self, draw: random.Random) -> str:
        noise = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(noise).resize((self.pixels, self.pixels)).save(buffer, "JPEG")
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
