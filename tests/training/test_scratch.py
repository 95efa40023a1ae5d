"""A model from nothing is an ordinary model directory of its family."""

import json
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch

from mllm_embed.families import get_family
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder
from mllm_embed.modeling.loading import load_base
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput
from mllm_embed_training.scratch import SPECIAL_TOKENS, ScratchModel, TextShape, VisionShape, create, spec_as_dict

SMALL = ScratchModel(
    vocab_size=300,
    text=TextShape(hidden_size=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate_size=96, max_tokens=256),
    vision=VisionShape(
        hidden_size=32, layers=2, heads=2, intermediate_size=64, deepstack=(0,), min_pixels=64 * 64, max_pixels=96 * 96
    ),
)
TEXTS = ["a cat on a mat", "a dog on a log"]


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    path = tmp_path_factory.mktemp("scratch") / request.param
    create(replace(SMALL, family=request.param), TEXTS, path, seed=4)
    return open_model_dir(path)


def test_it_opens_as_a_plain_model_of_its_family(made: ModelDir) -> None:
    recipe = made.recipe
    assert made.family is get_family(made.path.name)
    assert (recipe.dimensions, recipe.max_tokens) == (64, 256)
    assert (recipe.min_pixels, recipe.max_pixels) == (64 * 64, 96 * 96)
    assert made.pixels.factor == 32


def test_it_embeds_text_and_pictures_with_the_visual_tokens_that_the_pixel_rule_says(made: ModelDir) -> None:
    renderer = PromptRenderer(made.tokenizer_file, made.family, made.template)
    builder = InputBuilder(made, renderer.image_token_id)
    image = PIL.Image.linear_gradient("L").convert("RGB").resize((120, 70))
    prompt = renderer.render(EmbedInput.of("cat", image), "Find it.", [image])
    inputs = builder.build([prompt, renderer.render(EmbedInput.of("dog"), "Find it.", [])])
    visual = int((inputs["input_ids"][0] == renderer.image_token_id).sum())
    assert visual == made.pixels.visual_tokens(*image.size) > 1
    with torch.no_grad():
        vectors = encode(load_base(made.weights).eval(), inputs)
    assert vectors.shape == (2, 64)
    assert torch.isfinite(vectors).all()
    assert torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0) < 0.99


def test_the_tokenizer_keeps_every_text_and_every_control_token_whole(made: ModelDir) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(made.tokenizer_file))
    for text in (*TEXTS, "Größe 3,5 °C — 你好 🙂\n\t  x", "<|im_end|"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert [tokenizer.encode(token).ids for token in SPECIAL_TOKENS] == [[i] for i in range(len(SPECIAL_TOKENS))]
    assert tokenizer.get_vocab_size() <= 300


def test_configuration_and_tokenizer_agree(made: ModelDir) -> None:
    config = json.loads((made.path / "config.json").read_text())
    assert config["image_token_id"] == SPECIAL_TOKENS.index("<|image_pad|>")
    assert config["vision_start_token_id"] == SPECIAL_TOKENS.index("<|vision_start|>")
    assert config["text_config"]["eos_token_id"] == SPECIAL_TOKENS.index("<|im_end|>")
    assert config["text_config"]["vocab_size"] == 300
    assert sum(config["text_config"]["rope_parameters"]["mrope_section"]) == 16


def test_the_same_seed_makes_the_same_model_and_another_another(made: ModelDir, tmp_path: Path) -> None:
    spec = replace(SMALL, family=made.path.name)
    for name, seed in (("same", 4), ("other", 5)):
        create(spec, TEXTS, tmp_path / name, seed=seed)
    weights = (made.path / "model.safetensors").read_bytes()
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == weights
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights
    assert (tmp_path / "same" / "tokenizer.json").read_bytes() == made.tokenizer_file.read_bytes()


@pytest.mark.fast
def test_the_spec_is_written_as_plain_values() -> None:
    assert json.loads(json.dumps(spec_as_dict(SMALL)))["text"]["head_dim"] == 32


def test_capitals_are_small_letters_to_every_reader_of_the_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    create(replace(SMALL, lowercase=True), TEXTS, tmp_path, seed=1)
    ours = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(tmp_path)  # Qwen's own class would drop the rule
    for text in ("A RED Circle", "Zwei BLAUE Katzen"):
        assert ours.encode(text).ids == ours.encode(text.lower()).ids == theirs(text).input_ids
