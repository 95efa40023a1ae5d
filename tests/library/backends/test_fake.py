from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import PIL.Image
import pytest

from mllm_embed.embedder import Embedder

pytestmark = pytest.mark.fast


def test_vectors_are_the_same_in_every_process(fake: Embedder) -> None:
    code = (
        "from mllm_embed.backends.fake import fake_embedder; import sys;"
        "print(fake_embedder().embed(['a cat']).tobytes().hex());"
        "assert not {'torch', 'transformers', 'vllm'} & set(sys.modules)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fake.embed(["a cat"]).tobytes().hex()


def test_shared_words_make_similar_vectors(fake: Embedder, draw: Callable[..., PIL.Image.Image]) -> None:
    query, near, far = fake.embed(["the red cat", "a small red cat", "quick jumps"], instruction="")
    assert query @ near > query @ far + 0.2
    image, same, other = fake.embed([draw(1), draw(1), draw(2)], instruction="")
    assert image @ same > image @ other + 0.2


def test_order_and_instruction_matter(fake: Embedder, draw: Callable[..., PIL.Image.Image]) -> None:
    a, b = draw(1), draw(2)
    straight, swapped = fake.embed([(a, b), (b, a)])
    assert straight @ swapped < 0.9999
    assert fake.embed([a], instruction="x")[0] @ fake.embed([a], instruction="other")[0] < 0.9999
