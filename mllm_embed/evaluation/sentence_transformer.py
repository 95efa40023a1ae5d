"""What can be measured of other makers: any model of sentence-transformers, text-only or multimodal."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import ModelNotFound
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.media import MediaPolicy, load_sync
from mllm_embed.tasks import DEFAULT, Role, get_task
from mllm_embed.types import Content, EmbedInput, Image, Text
from mllm_embed.vectors import finish

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PREFIX = "st:"
"""What `--model` begins with for a model of sentence-transformers; a folder or a hub name follows."""
_DTYPES = ("float32", "bfloat16", "float16")


class SentenceTransformerEncoder:
    """Measures a model of sentence-transformers as its makers mean it: with its own prompts for queries and documents.

    Our instructions are not sent. An item under the instruction that all built-in tasks have for their targets is a
    document, every other one a query. Texts beyond the model's limit are cut, as the library does it.

    Args:
        model: a folder or hub name.
        precision: float32, bfloat16 or float16.

    Raises:
        EvaluationError: sentence-transformers is not installed, or cannot load in this precision.
        ModelNotFound: the library cannot open the model.
    """

    def __init__(self, model: str, *, precision: str = "float32") -> None:
        if precision not in _DTYPES:
            raise EvaluationError(f"the precision of {PREFIX}{model} must be one of {', '.join(_DTYPES)}: {precision}")
        self._model = open_sentence_transformer(model, precision)
        self._name = Path(model).name if Path(model).is_dir() else model
        self._precision = precision
        self._policy = MediaPolicy.local()

    def describe(self) -> dict[str, Any]:
        """Return the model's name, fingerprint, width, limit, prompts, library and precision."""
        from sentence_transformers import __version__ as version

        return {
            "name": self._name,
            "fingerprint": _fingerprint(self._model),
            "full_dimensions": self._model.get_embedding_dimension(),
            "max_tokens": self._model.max_seq_length,
            "prompts": dict(self._model.prompts),
            "backend": f"sentence-transformers {version}",
            "precision": self._precision,
        }

    def accepts(self, item: EmbedInput) -> bool:
        """Whether the model says that it takes such texts, pictures, or several of them in one input."""
        kinds: set[Any] = {_modality(content) for content in item.content}
        if len(item.content) > 1:
            kinds.add("message")
        return all(self._model.supports(kind) for kind in kinds)

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        """Embed queries and documents, each kind of input in batches of its own."""
        groups: dict[tuple[Role, str], list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            kind = "message" if len(item.content) > 1 else _modality(item.content[0])
            groups[_role(item), kind].append(place)
        rows: dict[int, NDArray[np.float32]] = {}
        for (role, _), places in groups.items():
            encode = self._model.encode_query if role == "query" else self._model.encode_document
            inputs: list[Any] = [self._input(items[place]) for place in places]
            rows.update(zip(places, encode(inputs, show_progress_bar=False), strict=True))
        return finish(np.stack([rows[place] for place in range(len(items))]).astype(np.float32))

    def _input(self, item: EmbedInput) -> Any:
        """Write an item as the library takes it: a string, a part by name, or a message of several parts in order."""
        if self._model.modalities == ["text"]:
            return self._value(item.content[0])
        # Parts are named, since a bare string may be taken for the path of a picture.
        parts = [{_modality(content): self._value(content)} for content in item.content]
        if len(parts) == 1:
            return parts[0]
        return [{"role": "user", "content": [{"type": kind, **part} for part in parts for kind in part]}]

    def _value(self, content: Content) -> Any:
        if isinstance(content, Text):
            return content.text
        if isinstance(content, Image):
            return load_sync(content, self._policy)
        raise TypeError(f"texts and pictures can be measured, but an item holds a {type(content).__name__}")


def open_sentence_transformer(name: str, precision: str = "float32") -> SentenceTransformer:
    """Open a model of sentence-transformers.

    Args:
        name: a folder or hub name.
        precision: float32, bfloat16 or float16.

    Raises:
        EvaluationError: sentence-transformers is not installed.
        ModelNotFound: the library cannot open the model.
    """
    try:
        from mllm_embed.modeling import torch_compat

        torch_compat.apply()  # sentence-transformers imports what needs it
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EvaluationError(
            f"{name} needs sentence-transformers: pip install 'mllm-embed[peers]' ({error})"
        ) from None
    try:
        return SentenceTransformer(name, model_kwargs={"dtype": precision})
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelNotFound(f"sentence-transformers cannot open {name}: {reason}") from None


def _role(item: EmbedInput) -> Role:
    return "target" if item.instruction in {None, get_task(DEFAULT).target} else "query"


def _modality(content: Content) -> str:
    """Name a modality as sentence-transformers does; it knows neither our frames nor our pages."""
    return {Text: "text", Image: "image"}.get(type(content), type(content).__name__)


def _fingerprint(model: SentenceTransformer) -> str:
    """SHA-256 over modules, prompts, limits, tokenizer and weights: equal means equal vectors."""
    import torch

    digest = hashlib.sha256(repr((str(model), model.prompts, model.max_seq_length)).encode())
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    digest.update(tokenizer.to_str().encode() if hasattr(tokenizer, "to_str") else repr(tokenizer).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
