"""Our embedder as a model of mteb, so that the tasks of MTEB and MIEB run on it (`pip install mteb`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed.types import EmbedInput, Image, Text

if TYPE_CHECKING:
    from mllm_embed.embedder import Embedder

_BY_CATEGORY = {
    "t2t": "text-to-text",
    "t2i": "text-to-image",
    "i2t": "image-to-text",
    "i2i": "image-to-image",
    "it2i": "composed",
    "it2t": "question",
}
"""Our task for the queries of a kind of mteb's task that brings no prompt of its own; the others take the default."""
_MEDIA = ("audio", "video")

Batch = Mapping[str, Sequence[Any]]
"""What mteb's data loaders yield: columns such as `text` and `image`, one value per input."""


class MtebModel:
    """Implements mteb's `EncoderProtocol`; hand it to `mteb.evaluate`.

    Args:
        embedder: the model and its engine.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes beside its results: name, fingerprint as revision, width and limits."""
        from mteb.models.model_meta import ModelMeta

        recipe = self._embedder.model_dir.recipe
        unknown = (
            *("release_date", "languages", "n_parameters", "memory_usage_mb", "license", "open_weights"),
            *("public_training_code", "public_training_data", "training_datasets"),
        )
        return ModelMeta(
            loader=None,
            name=f"mllm-embed/{self._embedder.name}",
            revision=self._embedder.model_dir.fingerprint,
            max_tokens=recipe.max_tokens,
            embed_dim=recipe.dimensions,
            framework=["PyTorch", "Transformers"],
            similarity_fn_name="cosine",
            use_instructions=True,
            modalities=["text", "image"],
            **dict.fromkeys(unknown),
        )

    def encode(
        self, inputs: Iterable[Batch], *, task_metadata: Any, prompt_type: str | None = None, **_: Any
    ) -> NDArray[np.float32]:
        """Embed what mteb hands over, under the instruction of the task and the role.

        Args:
            inputs: batches.
            task_metadata: mteb's description of the task; its `prompt`, `category` and `name` are read.
            prompt_type: `query`, `document`, or None where a task has no roles.

        Returns:
            unit vectors, float32, shape [N, D], in order.

        Raises:
            EvaluationError: the task holds sound or video.
        """
        instruction = instruction_of(task_metadata, prompt_type)
        found = [self._embedder.embed(_items(batch, instruction, task_metadata.name)) for batch in inputs]
        return np.concatenate(found)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of all pairs, shape [N, M]."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of rows of one place, shape [N]."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def instruction_of(task_metadata: Any, prompt_type: str | None) -> str:
    """Return the instruction for a role in one of mteb's tasks.

    The prompt that the task brings comes first; without one, queries take that of our task of their kind. Documents
    take a prompt only if the task has one for documents, since one prompt without a role is meant for queries.
    """
    prompt = task_metadata.prompt
    if isinstance(prompt, Mapping):
        prompt = prompt.get(prompt_type or "query")
    elif prompt_type == "document":
        prompt = None
    if prompt:
        return str(prompt)
    if prompt_type == "query":
        return get_task(_BY_CATEGORY.get(task_metadata.category, DEFAULT)).query
    return get_task(DEFAULT).target


def _items(batch: Batch, instruction: str, task: str) -> list[EmbedInput]:
    """Rows of a batch as inputs: the picture first, then the text, as in our own composed tasks."""
    if held := [name for name in _MEDIA if name in batch]:
        raise EvaluationError(f"texts and pictures can be measured by mteb, but {task} holds {held[0]}")
    columns = [(kind, batch[name]) for name, kind in (("image", Image), ("text", Text)) if name in batch]
    rows = zip(*([(kind, value) for value in values] for kind, values in columns), strict=True)
    return [EmbedInput(tuple(kind(value) for kind, value in row if value is not None), instruction) for row in rows]
