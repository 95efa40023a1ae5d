"""Models of sentence-transformers as what is measured: a tiny text model, and our own as a multimodal one."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from typer.testing import CliRunner, Result

from mllm_embed.embedder import Embedder
from mllm_embed.errors import ModelNotFound
from mllm_embed.evaluation.cli import evaluate
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.sentence_transformer import SentenceTransformerEncoder
from mllm_embed.model_dir import BUILT_IN, open_model_dir
from mllm_embed.modeling import torch_compat
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text, Video

torch_compat.apply()  # before the library imports torchvision
library: Any = importlib.import_module("sentence_transformers")
WORDS = ("query", "document", "red", "blue", "circle", "[UNK]")
TARGET = get_task("default").target
PICTURE = Image(PIL.Image.new("RGB", (64, 64), "red"))


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random word vectors, with prompts of its own."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = torch.randn(len(WORDS), 8, generator=torch.Generator().manual_seed(0)).numpy()
    path = tmp_path_factory.mktemp("models") / "words"
    prompts = {"query": "query ", "document": "document "}
    module = StaticEmbedding(tokenizer, embedding_weights=weights)
    library.SentenceTransformer(modules=[module], prompts=prompts, device="cpu").save(str(path))
    return path


@pytest.fixture(scope="module")
def words(text_model: Path) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(str(text_model))


@pytest.fixture(scope="module")
def own() -> SentenceTransformerEncoder:
    """The model that ships, through sentence-transformers: it says that it takes texts, pictures and both."""
    return SentenceTransformerEncoder(str(open_model_dir(BUILT_IN).path))


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with Embedder.load(BUILT_IN, backend="transformers", precision="float32") as opened:
        yield opened


def item(*content: Text | Image | Video, instruction: str | None = TARGET) -> EmbedInput:
    return EmbedInput(content, instruction)


def test_queries_and_documents_get_the_models_own_prompts(words: SentenceTransformerEncoder, text_model: Path) -> None:
    plain = library.SentenceTransformer(str(text_model), device="cpu")
    vectors = words.encode([item(Text("red"), instruction="Find it."), item(Text("red")), item(Text("blue"))])
    expected = plain.encode(["query red", "document red", "document blue"], prompt="", normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert vectors.dtype == np.float32


def test_a_text_model_takes_texts_only(words: SentenceTransformerEncoder) -> None:
    assert words.accepts(item(Text("red")))
    assert not words.accepts(item(PICTURE))
    assert not words.accepts(item(PICTURE, Text("red")))
    assert not words.accepts(item(Text("red"), Text("blue")))


def test_a_multimodal_model_gets_pictures_and_interleaved_inputs(
    own: SentenceTransformerEncoder, embedder: Embedder
) -> None:
    blue = Image(PIL.Image.new("RGB", (96, 64), "blue"))
    items = [
        item(Text("a red circle")),
        item(PICTURE),
        item(PICTURE, Text("the same, in blue")),
        item(Text("before"), PICTURE, blue, Text("after")),
        item(Text("https://example.org/red.png")),
    ]
    assert all(own.accepts(one) for one in items)
    assert not own.accepts(item(Video((PIL.Image.new("RGB", (8, 8)),))))
    # Without prompts of its own the exported model falls back on its default instruction, the one of targets.
    cosines = (own.encode(items) * embedder.embed(items)).sum(1)
    assert cosines.min() > 0.9999


def test_the_description_changes_with_what_decides_the_vectors(text_model: Path, tmp_path: Path) -> None:
    model = library.SentenceTransformer(str(text_model), device="cpu")
    first = SentenceTransformerEncoder(str(text_model)).describe()
    assert first["name"] == "words"
    assert first["full_dimensions"] == 8
    assert first["prompts"] == {"query": "query ", "document": "document "}
    fingerprints = [first["fingerprint"], SentenceTransformerEncoder(str(text_model)).describe()["fingerprint"]]
    assert len(set(fingerprints)) == 1
    model.prompts["query"] = ""
    model.save(str(tmp_path / "prompts"))
    model.prompts["query"] = "query "
    model[0].embedding.weight.data[2, 3] += 0.5
    model.save(str(tmp_path / "weights"))
    others = [SentenceTransformerEncoder(str(tmp_path / name)).describe() for name in ("prompts", "weights")]
    assert len({*fingerprints, *(other["fingerprint"] for other in others)}) == 3


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


def test_a_peer_is_measured_by_the_same_command(data_path: Path, text_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "peer.json"
    result = run("mini-mmeb", "--model", f"st:{text_model}", "--data", data_path, "--out", out, "--no-cache")
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert list(report["results"]) == ["emoji-t2t", "figure-t2t", "story-texts"]
    assert report["model"]["name"] == "words"
    assert report["model"]["backend"] == f"sentence-transformers {library.__version__}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--random-weights",), "--random-weights copies one of our model directories, and st:"),
        (("--precision", "4bit"), "must be one of float32, bfloat16, float16: 4bit"),
        (("--dimensions", "9"), "must be between 1 and 8, but is 9"),
        (("--tasks", "nlvr"), "words can do none of these tasks: nlvr"),
    ],
)
def test_what_does_not_apply_is_refused(
    data_path: Path, text_model: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = run("mini-mmeb", "--model", f"st:{text_model}", "--data", data_path, "--out", tmp_path / "a", *options)
    assert message in str(result.exception)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"sentence-transformers cannot open .*absent"):
        SentenceTransformerEncoder(str(tmp_path / "absent"))


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EvaluationError, match=r"any needs sentence-transformers: pip install 'mllm-embed\[peers\]'"):
        SentenceTransformerEncoder("any")
