"""What `mllm-embed check` measures: a model's vectors on inputs whose answers must agree with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from mllm_embed.backends import BackendName, load_backend
from mllm_embed.backends.support import vllm_refusal
from mllm_embed.embedder import Embedder
from mllm_embed.model_dir import ModelDir
from mllm_embed.prompts import PromptRenderer
from mllm_embed.toy_shapes import scenes
from mllm_embed.types import EmbedInput

BATCH_TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2, "4bit": 5e-2}
"""Largest difference between a vector computed in a batch and alone, by precision."""
PARITY = {"float32": 0.9999, "bfloat16": 0.995, "float16": 0.999}
"""Smallest cosine between transformers and vLLM, by precision; 4-bit weights are quantised differently by each."""
ENGINES: tuple[BackendName, ...] = ("vllm", "transformers")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """One line of the report.

    Attributes:
        name: what was checked.
        passed: None if it does not apply here.
        detail: the measured value and its limit, or why it does not apply.
    """

    name: str
    passed: bool | None
    detail: str


def inputs() -> list[EmbedInput]:
    """Return drawn pictures and texts: text, image, both, two images, and an image in the middle of text."""
    first, second = scenes(2, seed=0)
    return [
        EmbedInput.of(first.caption),
        EmbedInput.of(first.image),
        EmbedInput.of(first.image, "the same in blue"),
        EmbedInput.of(first.image, second.image),
        EmbedInput.of("between", second.image, "two texts"),
    ]


def engines(backend: BackendName) -> list[BackendName]:
    """Return the engines to check: the one asked for, or every one that is installed."""
    if backend != "auto":
        return [backend]
    return [name for name in ENGINES if find_spec(name)]


def measure(model_dir: ModelDir, backend: BackendName, precision: str) -> tuple[Vectors, list[Result]]:
    """Start an engine, check it by itself, and stop it.

    Args:
        model_dir: the opened model directory.
        backend: the engine.
        precision: of the weights.

    Returns:
        the vectors of `inputs()`, shape [N, D], and the results.

    Raises:
        MllmEmbedError: the engine does not start or fails.
    """
    with Embedder(model_dir, load_backend(backend, model_dir, precision=precision)) as embedder:
        vectors = embedder.embed(inputs())
        return vectors, [
            Result(f"{backend}: starts and answers", True, f"{len(vectors)} vectors of width {vectors.shape[1]}"),
            _batch(embedder, vectors, precision),
            _instruction(embedder),
            _order(embedder),
            _widths(embedder, vectors),
        ]


def special_tokens(model_dir: ModelDir) -> Result:
    """Check that control tokens typed by a user add no picture slot and no control id."""
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    control = {model_dir.family.image_token, *model_dir.family.image_slot, "<|im_start|>", "<|im_end|>"}
    typed = "".join(sorted(control))
    harmless = renderer.render(EmbedInput.of("x"), "", [])
    hostile = renderer.render(EmbedInput.of(typed), typed, [])
    slots = hostile.token_ids.count(renderer.image_token_id)
    known = [renderer.control_id(token) for token in model_dir.family.image_slot]
    passed = slots == 0 and all(hostile.token_ids.count(i) == harmless.token_ids.count(i) for i in known)
    return Result(
        "special tokens in text stay text", passed, f"{slots} picture slots from text that names {len(control)}"
    )


def adapter_effect(model_dir: ModelDir, backend: BackendName, precision: str, tuned: Vectors) -> Result:
    """Check that the adapter changes the vectors.

    Args:
        model_dir: the opened model directory.
        backend: the engine.
        precision: of the weights.
        tuned: the vectors of `inputs()` with the adapter, shape [N, D].
    """
    name = "the adapter changes the vectors"
    if model_dir.adapter is None:
        return Result(name, None, "the directory has no adapter: it is merged, or a plain model")
    bare = replace(model_dir, adapter=None)
    with Embedder(bare, load_backend(backend, bare, precision=precision)) as embedder:
        change = float(np.abs(embedder.embed(inputs()) - tuned).max())
    return Result(name, change > BATCH_TOLERANCE[precision], f"largest change {change:.2g}")


def parity(vectors: dict[BackendName, Vectors], precision: str) -> Result:
    """Check that the engines agree."""
    name = "transformers and vLLM agree"
    if len(vectors) < len(ENGINES):
        return Result(name, None, f"only one engine was checked: {', '.join(vectors)}")
    if precision not in PARITY:
        return Result(name, None, f"not defined for {precision} weights")
    first, second = vectors.values()
    cosine = float(np.sum(first * second, axis=1).min())
    return Result(name, cosine >= PARITY[precision], f"smallest cosine {cosine:.7f}, at least {PARITY[precision]}")


def _batch(embedder: Embedder, together: Vectors, precision: str) -> Result:
    alone = np.concatenate([embedder.embed([item]) for item in inputs()])
    return _below(embedder, "in a batch as alone", float(np.abs(alone - together).max()), BATCH_TOLERANCE[precision])


def _instruction(embedder: Embedder) -> Result:
    picture = inputs()[1]
    first, second = (embedder.embed([picture], instruction=text)[0] for text in ("What is it?", "Which colour has it?"))
    return _above(embedder, "the instruction changes the vector", float(np.abs(first - second).max()))


def _order(embedder: Embedder) -> Result:
    two = inputs()[3]
    first, second = embedder.embed([two, replace(two, content=two.content[::-1])])
    return _above(embedder, "the order of pictures changes the vector", float(np.abs(first - second).max()))


def _widths(embedder: Embedder, full: Vectors) -> Result:
    offered = embedder.model_dir.recipe.matryoshka_dimensions or (embedder.dimensions // 2,)
    error = 0.0
    for width in offered:
        cut = full[:, :width] / np.linalg.norm(full[:, :width], axis=1, keepdims=True)
        error = max(error, float(np.abs(embedder.embed(inputs(), dimensions=width) - cut).max()))
    return _below(embedder, f"cut to {', '.join(map(str, offered))}: the unit prefix", error, 1e-4)


def _below(embedder: Embedder, name: str, value: float, limit: float) -> Result:
    return Result(
        f"{embedder.backend.name}: {name}", value <= limit, f"largest difference {value:.2g}, at most {limit:g}"
    )


def _above(embedder: Embedder, name: str, value: float) -> Result:
    return Result(f"{embedder.backend.name}: {name}", value > 1e-4, f"largest change {value:.2g}, more than 0.0001")


def run(model_dir: ModelDir, backend: BackendName, precision: str, started: Callable[[str], None]) -> Iterator[Result]:
    """Run every check, one engine after the other.

    Args:
        model_dir: the opened model directory.
        backend: an engine, or `auto` for every one that is installed.
        precision: of the weights.
        started: is told what is about to happen.
    """
    yield special_tokens(model_dir)
    vectors: dict[BackendName, Vectors] = {}
    names: Sequence[BackendName] = engines(backend)
    if backend == "auto" and "vllm" in names and (reason := vllm_refusal(model_dir)) is not None:
        names = [name for name in names if name != "vllm"]
        yield Result("vllm: not checked", None, f"it cannot serve the model: {reason}")
    for name in names:
        started(f"starting {name}")
        vectors[name], results = measure(model_dir, name, precision)
        yield from results
    started("comparing")
    yield adapter_effect(model_dir, names[-1], precision, vectors[names[-1]])
    yield parity(vectors, precision)
