"""The files beside the weights: tokenizer, processors, recipe, and what stock vLLM and sentence-transformers read."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from mllm_embed.model_dir import write_recipe
from mllm_embed_training.chat_template import chat_template

if TYPE_CHECKING:
    from pathlib import Path

    from mllm_embed.model_dir import ModelDir

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)


def write_companions(base: ModelDir, out: Path) -> None:
    """Write everything that a complete model directory holds besides `config.json` and weights.

    Args:
        base: weights directory of the base model, with the recipe of the model that is made.
        out: an existing directory, already holding `config.json`.
    """
    for name in _COPIED:
        if (base.weights / name).exists():
            shutil.copyfile(base.weights / name, out / name)
    _set_pixels(base, out)
    (out / "chat_template.jinja").write_text(chat_template(base), encoding="utf-8")
    _write_sentence_transformers(base, out)
    write_recipe(out, base.recipe)


def matryoshka_keys(base: ModelDir) -> dict[str, Any]:
    """Return the keys of `config.json` by which stock vLLM takes `dimensions`: the trained widths and the full one."""
    recipe = base.recipe
    if not recipe.matryoshka_dimensions:
        return {}
    widths = sorted({*recipe.matryoshka_dimensions, recipe.dimensions})
    return {"is_matryoshka": True, "matryoshka_dimensions": widths}


def _set_pixels(base: ModelDir, out: Path) -> None:
    """Record the recipe's pixel limits where other programs look for them; pictures of fixed sizes have none."""
    changed = base.pixels.options()
    for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if not changed or not (out / name).exists():
            continue
        config = json.loads((out / name).read_text(encoding="utf-8"))
        settings = config if section is None else config.get(section)
        if settings is None:
            continue
        settings |= changed
        for key, value in (("min_pixels", base.recipe.min_pixels), ("max_pixels", base.recipe.max_pixels)):
            if key in settings:
                settings[key] = value
        _write_json(out / name, config)


def _write_sentence_transformers(base: ModelDir, out: Path) -> None:
    """Describe the pooling as sentence-transformers does; stock vLLM reads it too."""
    modules = "sentence_transformers.models."
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    listing = [
        {"idx": index, "name": str(index), "path": path, "type": modules + kind}
        for index, (path, kind) in enumerate(parts)
    ]
    _write_json(out / "modules.json", listing)
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    transformer = {
        "transformer_task": "feature-extraction",
        # With "message", texts and pictures go through the chat template too, hence become the trained prompt.
        "modality_config": {"text": forward, "image": forward, "message": {**forward, "format": "structured"}},
        "module_output_name": "token_embeddings",
    }
    _write_json(out / "sentence_bert_config.json", transformer)
    for path, _ in parts[1:]:
        (out / path).mkdir()
    pooling = {
        "word_embedding_dimension": base.recipe.dimensions,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": base.recipe.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": base.recipe.pooling == "last_token",
        "include_prompt": True,
    }
    _write_json(out / "1_Pooling" / "config.json", pooling)
    _write_json(out / "2_Normalize" / "config.json", {})  # a folder without files does not survive git


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
