"""Our embedder as a model of mteb; the whole way is run where mteb is installed."""

import importlib
import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.mteb_model import Batch, MtebModel, instruction_of
from mllm_embed.types import EmbedInput

pytestmark = pytest.mark.fast
TARGET = "Represent the user's input."


def metadata(category: str = "t2t", prompt: str | dict[str, str] | None = None) -> SimpleNamespace:
    """What is read of mteb's description of a task."""
    return SimpleNamespace(name="Mock", category=category, prompt=prompt)


@pytest.mark.parametrize(
    ("category", "prompt", "role", "expected"),
    [
        ("t2t", {"query": "Find the duplicate."}, "query", "Find the duplicate."),
        ("t2t", {"query": "Find the duplicate."}, "document", TARGET),
        ("t2t", {"query": "Find it.", "document": "Represent the page."}, "document", "Represent the page."),
        ("t2t", "Find the duplicate.", "query", "Find the duplicate."),
        ("t2t", "Find the duplicate.", "document", TARGET),
        ("t2t", "Retrieve texts that mean the same.", None, "Retrieve texts that mean the same."),
        ("t2t", None, None, TARGET),
        ("t2t", None, "query", "Find the text that means the same."),
        ("t2i", None, "query", "Find the picture that shows this."),
        ("it2i", None, "query", "Find this picture with the change applied."),
        ("i2it", None, "query", TARGET),
        ("t2i", None, "document", TARGET),
    ],
)
def test_instructions_follow_prompt_and_role(
    category: str, prompt: str | dict[str, str] | None, role: str | None, expected: str
) -> None:
    assert instruction_of(metadata(category, prompt), role) == expected


def test_batches_of_texts_and_pictures_keep_their_order() -> None:
    pictures = [PIL.Image.new("RGB", (30, 30), colour) for colour in ("red", "blue", "green")]
    batches: list[Batch] = [{"text": ["a", "b"], "image": pictures[:2]}, {"text": ["c"], "image": pictures[2:]}]
    with fake_embedder() as embedder:
        vectors = MtebModel(embedder).encode(batches, task_metadata=metadata("it2i"), prompt_type="document")
        rows = zip(pictures, "abc", strict=True)
        expected = embedder.embed([EmbedInput.of(picture, text, instruction=TARGET) for picture, text in rows])
    np.testing.assert_array_equal(vectors, expected)


def test_a_corpus_may_lack_pictures_of_some_rows() -> None:
    with fake_embedder() as embedder:
        batch: Batch = {"text": ["a"], "image": [None], "title": ["not read: mteb's texts hold their titles"]}
        vectors = MtebModel(embedder).encode([batch], task_metadata=metadata(), prompt_type="document")
        np.testing.assert_array_equal(vectors, embedder.embed([EmbedInput.of("a", instruction=TARGET)]))


def test_sound_is_refused() -> None:
    with fake_embedder() as embedder, pytest.raises(EvaluationError, match="but Mock holds audio"):
        MtebModel(embedder).encode([{"audio": [b""]}], task_metadata=metadata("a2t"), prompt_type="query")


@pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="needs mteb (pip install mteb)")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["MockRetrievalTask", "MockAny2AnyRetrievalT2ITask", "MockSTSTask"])
def test_mteb_evaluates_it(name: str) -> None:
    importlib.import_module("mllm_embed.modeling.torch_compat").apply()  # mteb imports what needs it
    mteb: Any = importlib.import_module("mteb")
    task = getattr(importlib.import_module("mteb.mocks.mock_tasks"), name)()
    with fake_embedder() as embedder:
        result = mteb.evaluate(MtebModel(embedder), task, cache=None, show_progress_bar=False)
    (scores,) = result.task_results
    assert scores.task_name == task.metadata.name
    assert 0 <= scores.scores["test"][0]["main_score"] <= 1
    assert result.model_name == "mllm-embed/fake"
    assert result.model_revision == embedder.model_dir.fingerprint
