"""Published embedders: an entry names what exists, and a checkpoint under its name is run the authors' way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest

from mllm_embed import model_dir, published
from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.families import get_family
from mllm_embed.model_dir import open_model_dir
from mllm_embed.published import PUBLISHED
from mllm_embed.types import EmbedInput

TinyModel = Callable[[str], Path]

SLOT = "<|vision_start|><|image_pad|><|vision_end|>"
SYSTEM, USER, ANSWER = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
HELPFUL = f"{SYSTEM}You are a helpful assistant.{USER}"
ONE_WORD = " in one word:\n<|im_end|><|im_start|>assistant\n"


@pytest.mark.fast
@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_names_what_exists(name: str) -> None:
    entry = PUBLISHED[name]
    assert name.count("/") == 1
    assert entry.source
    assert (entry.family is None) == (entry.refused is not None) == (entry.state == "not served")
    if entry.family is not None:
        family = get_family(entry.family)
        assert entry.template in family.templates
        assert entry.position_mode in (None, *family.position_modes)
        assert entry.attention in (None, *family.attention_modes)


@pytest.mark.fast
def test_vlm2vecs_prompt_without_marks_goes_with_1d_positions() -> None:
    for entry in PUBLISHED.values():
        if entry.family == "qwen2_vl":
            assert (entry.template == "vlm2vec") == (entry.position_mode == "1d"), entry.name


@pytest.fixture
def served_as(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Let a hub name lead to a plain tiny model of a family, whose width the entry is given."""

    def serve(name: str, family: str) -> None:
        plain = Path(shutil.copytree(tiny_model(family), tmp_path / "hub" / name))
        (plain / model_dir.RECIPE_FILE).unlink(missing_ok=True)
        monkeypatch.setattr(model_dir, "_from_hub", lambda asked: tmp_path / "hub" / asked)
        if name in PUBLISHED:
            monkeypatch.setitem(published.PUBLISHED, name, replace(PUBLISHED[name], dimensions=64))

    return serve


@pytest.mark.parametrize(
    ("name", "family", "expected"),
    [
        ("TIGER-Lab/VLM2Vec-Qwen2VL-2B", "qwen2_vl", ("vlm2vec", "last_token", "1d", "causal")),
        ("moca-embed/MoCa-Qwen25VL-3B", "qwen2_5_vl", ("moca", "mean", "mrope", "bidirectional")),
        ("DeepGlint-AI/UniME-LLaVA-1.6-7B", "llava_next", ("unime", "last_token", "1d", "causal")),
        ("intfloat/mmE5-mllama-11b-instruct", "mllama", ("mme5", "last_token", "1d", "causal")),
        ("Qwen/Qwen3-VL-Embedding-2B", "qwen3_vl", ("qwen3-vl-embedding", "last_token", "mrope", "causal")),
    ],
)
def test_a_hub_name_brings_the_authors_way(
    name: str, family: str, expected: tuple[str, ...], served_as: Callable[[str, str], None]
) -> None:
    served_as(name, family)
    recipe = open_model_dir(name).recipe
    assert (recipe.template, recipe.pooling, recipe.position_mode, recipe.attention) == expected
    assert recipe.name == name


def test_a_checkpoint_of_another_family_is_refused(served_as: Callable[[str, str], None]) -> None:
    served_as("TIGER-Lab/VLM2Vec-Qwen2VL-2B", "qwen2_5_vl")
    with pytest.raises(IncompatibleCheckpoint, match="has the family 'qwen2_vl', but the checkpoint has 'qwen2_5_vl'"):
        open_model_dir("TIGER-Lab/VLM2Vec-Qwen2VL-2B")


@pytest.mark.fast
@pytest.mark.parametrize("name", [name for name, entry in PUBLISHED.items() if entry.refused is not None])
def test_what_cannot_be_run_is_refused_before_it_is_downloaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_dir, "_from_hub", lambda asked: pytest.fail(f"{asked} was downloaded"))
    with pytest.raises(IncompatibleCheckpoint, match=f"^{name} cannot be run: {PUBLISHED[name].refused}$"):
        open_model_dir(name)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["TIGER-Lab/VLM2Vec-Full", "TIGER-Lab/VLM2Vec-LoRA", "jinaai/jina-embeddings-v4"])
def test_what_needs_remote_code_is_refused_for_that(name: str) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="code in its checkpoint, and remote code is never run here"):
        open_model_dir(name)


def test_a_checkpoint_that_brings_code_is_refused_unless_its_facts_are_known(
    served_as: Callable[[str, str], None], tmp_path: Path
) -> None:
    for name, family in (("somebody/some-lvlm", "qwen2_vl"), ("MrLight/dse-qwen2-2b-mrl-v1", "qwen2_vl")):
        served_as(name, family)
        file = tmp_path / "hub" / name / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Model"}}), encoding="utf-8")
    with pytest.raises(IncompatibleCheckpoint, match=r"some-lvlm/config\.json names code .* remote code is never run"):
        open_model_dir("somebody/some-lvlm")
    assert open_model_dir("MrLight/dse-qwen2-2b-mrl-v1").recipe.template == "dse"


def test_an_unknown_lvlm_gets_its_familys_default_and_that_is_said(
    served_as: Callable[[str, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    served_as("somebody/some-lvlm", "llava_next")
    assert open_model_dir("somebody/some-lvlm").recipe.template == "plain"
    assert "run as family llava_next with the template plain" in caplog.text


def test_a_bare_adapter_is_run_on_the_base_that_it_names(
    tiny_adapter: TinyModel, tiny_model: TinyModel, tmp_path: Path
) -> None:
    adapter = Path(shutil.copytree(tiny_adapter("qwen2_vl") / "adapter", tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = str(tiny_model("qwen2_vl"))
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    opened = open_model_dir(adapter)
    assert (opened.adapter, opened.weights) == (adapter.resolve(), tiny_model("qwen2_vl").resolve())


@pytest.mark.parametrize(
    ("family", "template", "content", "instruction", "text"),
    [
        ("qwen2_vl", "vlm2vec", ["I", "a cat"], "Find it.", "<|image_pad|> Find it. a cat"),
        ("qwen2_vl", "vlm2vec", ["a cat", "I"], "Find it.", "<|image_pad|> Find it. a cat"),
        ("qwen2_vl", "vlm2vec", ["I"], "Find it.", "<|image_pad|> Find it."),
        ("qwen2_vl", "vlm2vec", ["a cat"], "Find it.", "Find it. a cat"),
        ("qwen2_vl", "vlm2vec", ["I", "a cat"], "", "<|image_pad|> a cat"),
        ("qwen2_vl", "vlm2vec", ["a cat"], "", "a cat"),
        ("qwen2_5_vl", "moca", ["I", "a"], "Find it.", "<|vision_start|><|image_pad|><|vision_end|>Find it. a\n"),
        ("llava_next", "unime", ["I"], "", "<s>[INST] <image>\nSummary above image in one word: [/INST]"),
        ("llava_next", "unime", ["a"], "", "<s>[INST] a\nSummary above sentence in one word: [/INST]"),
        ("llava_onevision", "unime", ["I"], "", "<|im_start|>user <image>\nSummary above image" + ONE_WORD),
        ("llava_onevision", "unime", ["a"], "", "<|im_start|>user \na\nSummary above sentence" + ONE_WORD),
        ("llava_onevision", "vlm2vec", ["a", "I"], "Find it.", "<image> Find it. a"),
        ("qwen2_vl", "rzen", ["I", "a"], "Find: ", HELPFUL + SLOT + "Find: a" + ANSWER + "<|endoftext|>"),
        ("qwen2_vl", "gme", ["a", "I"], "Find it.", SYSTEM + "Find it." + USER + SLOT + "a" + ANSWER + "<|endoftext|>"),
        ("qwen3_vl", "qwen3-vl-embedding", ["a", "I"], "Find it", SYSTEM + "Find it." + USER + SLOT + "a" + ANSWER),
        ("qwen3_vl", "qwen3-vl-embedding", ["a"], " Find it? ", SYSTEM + "Find it?" + USER + "a" + ANSWER),
        ("qwen3_vl", "chat", ["a"], "Find it", SYSTEM + "Find it" + USER + "a" + ANSWER),
        ("mllama", "mme5", ["I", "a"], "Find it.", "<|image|><|begin_of_text|>Find it. a\n"),
        ("mllama", "mme5", ["a", "I"], "Find it.", "<|image|><|begin_of_text|>Find it. a\n"),
        ("mllama", "mme5", ["I"], "Find it.", "<|image|><|begin_of_text|>Find it.\n"),
        ("mllama", "mme5", ["a"], "Find it:", "<|begin_of_text|>Find it: a\n"),
        ("mllama", "mme5", ["a"], "", "<|begin_of_text|>a"),
        ("qwen3_5", "wemm", ["I", "a"], "Find it.", f"<|im_start|>user{SLOT}Find it. a<|im_end|><embedding>"),
        ("qwen3_5", "wemm", ["I"], "", f"<|im_start|>user{SLOT}<|im_end|><embedding>"),
        ("qwen3_5", "wemm", ["a"], "Find it.", "<|im_start|>user\nFind it. a<|im_end|><embedding>"),
        ("qwen3_5", "wemm", ["a"], "", "<|im_start|>user\na<|im_end|><embedding>"),
    ],
)
def test_the_authors_prompts_word_for_word(
    family: str, template: str, content: list[str], instruction: str, text: str, tiny_model: TinyModel
) -> None:
    """`I` is a picture. The expected ids are those of the whole prompt as one string, control tokens honoured."""
    from tokenizers import Tokenizer

    from mllm_embed.prompts import PromptRenderer

    path = tiny_model(family)
    known = get_family(family)
    images = [PIL.Image.new("RGB", (60, 60))] * content.count("I")
    item = EmbedInput.of(*(images[0] if piece == "I" else piece for piece in content))
    prompt = PromptRenderer(path / "tokenizer.json", known, known.templates[template]).render(item, instruction, images)
    assert (
        list(prompt.token_ids)
        == Tokenizer.from_file(str(path / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    )
