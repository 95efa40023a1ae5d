"""A new LVLM with random weights: its own byte-level BPE tokenizer, an architecture of a known family, the processors.

The result is an ordinary Hugging Face model directory, so every tool that reads one reads it. Training starts
`mllm-embed-mini` from it; the tests build tiny ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mllm_embed.modeling import torch_compat

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The pre-tokenisation pattern of GPT-4 and Qwen: words with their leading space, single digits, runs of punctuation.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n"
    "{%- if message.content is string -%}{{ message.content }}{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' or part.type == 'image_url' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """Size of the language model; `head_dim` must be one that vLLM's CPU attention takes (32, 64, 80, 96, 128)."""

    hidden_size: int = 320
    layers: int = 6
    heads: int = 5
    kv_heads: int = 5
    head_dim: int = 64
    intermediate_size: int = 896
    max_tokens: int = 2048


@dataclass(frozen=True, kw_only=True)
class VisionShape:
    """Size of the vision tower; one visual token covers (patch_size x merge_size) squared pixels."""

    hidden_size: int = 256
    layers: int = 6
    heads: int = 4
    intermediate_size: int = 1024
    patch_size: int = 16
    merge_size: int = 2
    deepstack: tuple[int, ...] = (2,)
    """Tower layers whose features are added to the first language-model layers (Qwen3-VL only)."""
    min_pixels: int = 96 * 96
    max_pixels: int = 112 * 112


@dataclass(frozen=True, kw_only=True)
class ScratchModel:
    """A model to be made from nothing."""

    family: str = "qwen3_vl"
    vocab_size: int = 8192
    lowercase: bool = False
    """Read capitals as small letters: a small model has no data to learn that RED and red are the same."""
    text: TextShape = field(default_factory=TextShape)
    vision: VisionShape = field(default_factory=VisionShape)


def create(spec: ScratchModel, corpus: Iterable[str], path: Path, *, seed: int = 0) -> None:
    """Write a model directory with random weights.

    Args:
        spec: family and sizes.
        corpus: texts on which the tokenizer is trained.
        path: directory to write, made if absent.
        seed: of the random weights.
    """
    torch_compat.apply()
    import torch
    from transformers import AutoModelForImageTextToText

    path.mkdir(parents=True, exist_ok=True)
    token_ids = write_tokenizer(corpus, spec.vocab_size, path, lowercase=spec.lowercase)
    config = _config(spec, token_ids)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = token_ids["<|im_end|>"]
    model.generation_config.pad_token_id = token_ids["<|endoftext|>"]
    model.save_pretrained(path)
    _write_processors(spec, path)


def write_tokenizer(corpus: Iterable[str], vocab_size: int, path: Path, *, lowercase: bool = False) -> dict[str, int]:
    """Train a byte-level BPE tokenizer, write it, and return the ids of the special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        chat_template=_CHAT_TEMPLATE,
    )
    fast.save_pretrained(path)
    config_file = path / "tokenizer_config.json"
    config = json.loads(config_file.read_text())
    # Qwen's class is the one that Qwen-VL processors expect, but it puts NFC alone in the place of any normalizer.
    config["tokenizer_class"] = "PreTrainedTokenizerFast" if lowercase else "Qwen2TokenizerFast"
    config_file.write_text(json.dumps(config, indent=2) + "\n")
    return {token: tokenizer.get_vocab()[token] for token in SPECIAL_TOKENS}


def _config(spec: ScratchModel, token_ids: dict[str, int]) -> Any:
    """Build the family's configuration object."""
    from transformers import AutoConfig

    builder = {"qwen2_vl": _qwen2_vl, "qwen3_vl": _qwen3_vl}[spec.family]
    vision, text = builder(spec)
    shared = {
        "image_token_id": token_ids["<|image_pad|>"],
        "video_token_id": token_ids["<|video_pad|>"],
        "vision_start_token_id": token_ids["<|vision_start|>"],
        "vision_end_token_id": token_ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    text |= {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.text.hidden_size,
        "intermediate_size": spec.text.intermediate_size,
        "num_hidden_layers": spec.text.layers,
        "num_attention_heads": spec.text.heads,
        "num_key_value_heads": spec.text.kv_heads,
        "max_position_embeddings": spec.text.max_tokens,
        "bos_token_id": token_ids["<|endoftext|>"],
        "eos_token_id": token_ids["<|im_end|>"],
        "pad_token_id": None,
        "tie_word_embeddings": True,
    }
    return AutoConfig.for_model(spec.family, text_config=text, vision_config=vision, **shared)


def _mrope_section(head_dim: int) -> list[int]:
    """Split the rotary pairs over time, height and width as Qwen does (2 : 3 : 3 of a quarter each)."""
    pairs = head_dim // 2
    side = pairs * 3 // 8
    return [pairs - 2 * side, side, side]


def _qwen2_vl(spec: ScratchModel) -> tuple[dict[str, Any], dict[str, Any]]:
    vision = {
        "depth": spec.vision.layers,
        "embed_dim": spec.vision.hidden_size,
        "num_heads": spec.vision.heads,
        "mlp_ratio": spec.vision.intermediate_size // spec.vision.hidden_size,
        "hidden_size": spec.text.hidden_size,
        "patch_size": spec.vision.patch_size,
        "spatial_merge_size": spec.vision.merge_size,
    }
    rope = {"rope_type": "default", "mrope_section": _mrope_section(spec.text.head_dim), "rope_theta": 10000.0}
    return vision, {"rope_parameters": rope}


def _qwen3_vl(spec: ScratchModel) -> tuple[dict[str, Any], dict[str, Any]]:
    vision = {
        "depth": spec.vision.layers,
        "hidden_size": spec.vision.hidden_size,
        "num_heads": spec.vision.heads,
        "intermediate_size": spec.vision.intermediate_size,
        "out_hidden_size": spec.text.hidden_size,
        "patch_size": spec.vision.patch_size,
        "spatial_merge_size": spec.vision.merge_size,
        "deepstack_visual_indexes": list(spec.vision.deepstack),
        "num_position_embeddings": 64,
    }
    rope = {
        "rope_type": "default",
        "mrope_section": _mrope_section(spec.text.head_dim),
        "mrope_interleaved": True,
        "rope_theta": 10000.0,
    }
    return vision, {"head_dim": spec.text.head_dim, "rope_parameters": rope}


def _write_processors(spec: ScratchModel, path: Path) -> None:
    """Write the picture settings, and the video settings that the Qwen-VL processors insist on."""
    kind = {"qwen2_vl": "Qwen2VL", "qwen3_vl": "Qwen3VL"}[spec.family]
    picture = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": f"{kind}Processor",
        "patch_size": spec.vision.patch_size,
        "temporal_patch_size": 2,
        "merge_size": spec.vision.merge_size,
        "size": {"shortest_edge": spec.vision.min_pixels, "longest_edge": spec.vision.max_pixels},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    video = {**picture, "video_processor_type": f"{kind}VideoProcessor"}
    del video["image_processor_type"]
    (path / "preprocessor_config.json").write_text(json.dumps(picture, indent=2) + "\n")
    (path / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n")


def spec_as_dict(spec: ScratchModel) -> dict[str, Any]:
    """Return the spec as plain values, for run reports."""
    return asdict(spec)
