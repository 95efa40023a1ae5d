"""An export is complete, proved, or absent."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mllm_embed.errors import IncompatibleCheckpoint, ModelError
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.loading import attach_adapter, load_base
from mllm_embed.types import Text
from mllm_embed_training import export_files, model_writer
from mllm_embed_training.export import Exported, export
from mllm_embed_training.export_proof import fixed_set, vectors

OPTIONS: dict[str, Any] = {"name": "tuned", "template": "plain", "matryoshka_dimensions": (32, 16)}


def make_adapter(base: ModelDir, path: Path, std: float) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    targets = [*base.family.lora_targets, *base.family.tower_targets]
    tuned = get_peft_model(load_base(base.weights), LoraConfig(r=4, lora_alpha=16, target_modules=targets))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=std)
    tuned.save_pretrained(str(path))
    return path


@pytest.fixture(scope="module")
def adapter(tiny_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny_dir, tmp_path_factory.mktemp("adapters") / "adapter", 0.1)


@pytest.fixture(scope="module")
def exported(tiny_dir: ModelDir, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tiny_dir, adapter, tmp_path_factory.mktemp("exports") / "tuned", **OPTIONS)


def test_the_export_gives_the_unmerged_models_vectors(tiny_dir: ModelDir, adapter: Path, exported: Exported) -> None:
    assert exported.proof.merged_cosine >= 0.999999
    assert exported.proof.adapter_effect is not None
    assert exported.proof.adapter_effect > 0.01
    assert 0.999 < exported.proof.rounded_cosine < exported.proof.merged_cosine
    unmerged = attach_adapter(load_base(tiny_dir.weights), adapter).eval()
    new = exported.model_dir
    shipped = vectors(load_base(new.weights).eval(), new)
    trained = tiny_dir.with_recipe(template="plain")
    cosines = (vectors(unmerged, trained) * shipped).sum(dim=-1)
    assert float(cosines.min()) == pytest.approx(exported.proof.rounded_cosine, abs=1e-5)


def test_the_directory_is_complete(tiny_dir: ModelDir, exported: Exported) -> None:
    new = open_model_dir(exported.model_dir.path)
    assert new.adapter is None
    assert new.weights == new.path
    recipe = new.recipe
    assert (recipe.name, recipe.template, recipe.matryoshka_dimensions) == ("tuned", "plain", (16, 32))
    assert (recipe.min_pixels, recipe.max_pixels) == (tiny_dir.recipe.min_pixels, tiny_dir.recipe.max_pixels)
    config = json.loads((new.path / "config.json").read_text())
    assert config["is_matryoshka"] is True
    assert config["matryoshka_dimensions"] == [16, 32, 64]
    assert config["dtype"] == "bfloat16"
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
    modules = json.loads((new.path / "modules.json").read_text())
    assert [module["type"].rsplit(".", 1)[1] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    pooling = json.loads((new.path / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_lasttoken"] is True
    assert pooling["word_embedding_dimension"] == 64
    assert (new.path / "tokenizer.json").read_bytes() == (tiny_dir.weights / "tokenizer.json").read_bytes()
    for file in new.path.rglob("*.json"):
        assert str(tiny_dir.path.parent) not in file.read_text(), f"{file.name} names a path of this machine"


def test_the_chat_template_makes_the_trained_prompt(exported: Exported) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported.model_dir.path)
    picture = {"type": "image"}
    content = [{"type": "text", "text": "before \"'\n"}, picture, {"type": "text", "text": "after"}]
    slot = "<|vision_start|><|image_pad|><|vision_end|>"
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Find it."}, {"role": "user", "content": content}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == f"Find it.\nbefore \"'\n{slot}after<|endoftext|>"
    alone = tokenizer.apply_chat_template([{"role": "user", "content": "cat"}], tokenize=False)
    assert alone == "Represent the user's input.\ncat<|endoftext|>"


def test_vllm_reads_the_pooling(exported: Exported) -> None:
    config = pytest.importorskip("vllm.transformers_utils.config")
    assert config.get_pooling_config(str(exported.model_dir.path)) == {
        "use_activation": True,
        "seq_pooling_type": "LAST",
    }


def test_sentence_transformers_gives_our_vectors(exported: Exported) -> None:
    library: Any = pytest.importorskip("sentence_transformers")
    item, images = next((item, images) for item, images in fixed_set() if len(item.content) == 2 and len(images) == 1)
    text = item.content[1]
    assert isinstance(text, Text)
    embedder = library.SentenceTransformer(
        str(exported.model_dir.path), device="cpu", model_kwargs={"dtype": "float32"}
    )
    theirs = embedder.encode([{"image": images[0], "text": text.text}], convert_to_tensor=True)
    ours = vectors(load_base(exported.model_dir.weights).eval(), exported.model_dir)
    assert float((ours @ theirs[0]).max()) >= 0.9999


def test_shards_keep_to_their_limit(tiny_dir: ModelDir, adapter: Path, tmp_path: Path) -> None:
    result = export(tiny_dir, adapter, tmp_path / "out", **OPTIONS, dtype="float32", max_shard_mib=0.5)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    assert max(file.stat().st_size for file in files) <= 2**19
    assert result.bytes == sum(file.stat().st_size for file in files)
    assert result.proof.rounded_cosine >= 0.999999


def test_a_fully_trained_model_needs_no_adapter(tiny_dir: ModelDir, tmp_path: Path) -> None:
    result = export(tiny_dir, None, tmp_path / "out", name="full")
    assert result.proof.adapter_effect is None
    assert result.model_dir.recipe.template == tiny_dir.recipe.template
    assert "is_matryoshka" not in json.loads((tmp_path / "out/config.json").read_text())


def refused(tmp_path: Path, base: ModelDir, adapter: Path, message: str) -> None:
    with pytest.raises(IncompatibleCheckpoint, match=message):
        export(base, adapter, tmp_path / "out", **OPTIONS)
    assert not list(tmp_path.glob("*out*")), "something was left behind"


def test_a_zeroed_adapter_is_refused(tiny_dir: ModelDir, tmp_path: Path) -> None:
    refused(tmp_path, tiny_dir, make_adapter(tiny_dir, tmp_path / "zero", 0), "every lora_B is zero")


def test_an_adapter_that_changes_no_vector_is_refused(tiny_dir: ModelDir, tmp_path: Path) -> None:
    refused(tmp_path, tiny_dir, make_adapter(tiny_dir, tmp_path / "faint", 1e-9), "must move an input's vector")


def test_an_adapter_of_another_model_is_refused(tiny_dir: ModelDir, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    foreign = tmp_path / "foreign"
    shutil.copytree(adapter, foreign)
    file = foreign / "adapter_model.safetensors"
    save_file({name.replace("language_model", "lm"): tensor for name, tensor in load_file(file).items()}, file)
    refused(tmp_path, tiny_dir, foreign, "adapter weights fit nowhere")


def test_a_folder_without_adapter_is_refused(tiny_dir: ModelDir, tmp_path: Path) -> None:
    refused(tmp_path, tiny_dir, tmp_path, "holds no adapter_model.safetensors")


@pytest.mark.parametrize("std", [0.1, 2e-4])
def test_a_skipped_merge_is_refused_even_of_a_weak_adapter(
    tiny_dir: ModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, std: float
) -> None:
    from peft import PeftModel

    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda model, **_: model.unload(), raising=False)
    refused(tmp_path, tiny_dir, make_adapter(tiny_dir, tmp_path / "adapter", std), "100% is lost")


@pytest.mark.parametrize("fault", ["weights", "pixels"])
def test_files_that_do_not_hold_the_model_are_refused(
    tiny_dir: ModelDir, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write = export_files.write_companions

    def spoil(base: ModelDir, out: Path) -> None:
        if fault == "weights":
            shutil.copyfile(tiny_dir.weights / "model.safetensors", out / "model.safetensors")
            write(base, out)
        else:
            write(base.with_recipe(min_pixels=32 * 32, max_pixels=48 * 48), out)

    monkeypatch.setattr(model_writer, "write_companions", spoil)
    refused(tmp_path, tiny_dir, adapter, "the written model must give")


def test_a_full_directory_is_not_touched(tiny_dir: ModelDir, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ModelError, match="is not empty"):
        export(tiny_dir, adapter, tmp_path, **OPTIONS)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_an_unknown_template_is_refused(tiny_dir: ModelDir, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="template must be one of chat, plain"):
        export(tiny_dir, adapter, tmp_path / "out", name="tuned", template="fancy")
