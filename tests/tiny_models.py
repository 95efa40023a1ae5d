"""Tiny random models, a second's work each, all parts real. What is a family's own stands in its test file."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm_embed.modeling import torch_compat

CORPUS = (
    "red blue green circle square triangle cat dog picture of the same thing with a change applied",
    "Represent the user's input. Find the picture that shows this. system user assistant what is it",
)
"""What the tokenizers are trained on."""
HEAD_DIM = 32
"""What vLLM's attention on a CPU takes at least."""
SIDE, PATCH = 56, 14
"""Pixels of a crop and of a patch: 16 patches per crop."""
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "pad_token_id": None,
}
VISION: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_VL_TOKENS = (*QWEN_TOKENS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_SHARPER = 6.0
"""Factor on random weight matrices: freshly initialised ones hardly attend, so that no test would see the order."""


def file_of(family: str) -> Any:
    """Return the module that tests one family: it makes the family's tiny model."""
    return importlib.import_module(f"tests.library.families.test_{family}")


def make(family: str, path: Path) -> Path:
    """Write the tiny model of a family.

    Args:
        family: the family's name.
        path: directory to write, made if absent.
    """
    path.mkdir(parents=True, exist_ok=True)
    file_of(family).make_tiny(path)
    change_weights(path, _sharpened)
    return path


def change_weights(path: Path, change: Callable[[str, Any], Any]) -> None:
    """Put other tensors in place of a model's own, by name and tensor."""
    from safetensors.torch import load_file, save_file

    file = path / "model.safetensors"
    changed = {name: change(name, tensor) for name, tensor in load_file(file).items()}
    save_file(changed, file, metadata={"format": "pt"})


def draw_by_name(model: Any) -> None:
    """Draw a model's weights by the names of its parameters: the same ones under any version of any library."""
    import numpy as np
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(parameter.shape))
            offset = 1.0 if ("norm" in name and name.endswith("weight")) or ".ln_q.weight" in name else 0.0
            parameter.copy_(torch.from_numpy((noise.astype(np.float32) * 0.15 + offset).astype(np.float32)))


def _sharpened(name: str, tensor: Any) -> Any:
    if tensor.ndim != 2 or "embed" in name:
        return tensor
    if not tensor.any():  # a projector that begins at nothing would hide the pictures
        tensor.normal_(std=0.02)
    return tensor * _SHARPER


def write(
    path: Path,
    family: str,
    tokens: Sequence[str],
    config: Callable[[Mapping[str, int], int], Mapping[str, Any]],
    processor: Callable[[Any], Any],
    *,
    opening: str | None = None,
    named_tokens: Mapping[str, str] | None = None,
    on_the_hub: Mapping[str, str] | None = None,
) -> None:
    """Write a model directory with random weights of one family, as transformers has it.

    Args:
        path: an existing directory.
        family: the configuration's `model_type`.
        tokens: control tokens; the first pads, the second ends.
        config: makes the configuration's fields from the ids of the tokens and the size of the vocabulary.
        processor: makes the processor from the tokenizer.
        opening: the token that the tokenizer puts before every text.
        named_tokens: tokens that the processor looks for on the tokenizer.
        on_the_hub: parts of weight names, and what published checkpoints of the family call them; transformers reads
            both, and writes what it has read.
    """
    torch_compat.apply()
    import torch
    from transformers import AutoConfig, AutoModelForMultimodalLM

    tokenizer = _tokenizer(tokens, opening, dict(named_tokens or {}))
    ids = dict(zip(tokens, tokenizer.convert_tokens_to_ids(list(tokens)), strict=True))
    torch.manual_seed(0)
    model = AutoModelForMultimodalLM.from_config(AutoConfig.for_model(family, **config(ids, len(tokenizer))))
    model.save_pretrained(path)
    _rename(path / "model.safetensors", on_the_hub or {})
    processor(tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)


def from_scratch(family: str, path: Path) -> None:
    """Write the tiny model of a family of which training makes models from nothing."""
    from mllm_embed_training.scratch import ScratchModel, TextShape, VisionShape, create

    text = TextShape(hidden_size=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate_size=128, max_tokens=512)
    vision = VisionShape(
        hidden_size=64,
        layers=2,
        heads=2,
        intermediate_size=128,
        deepstack=(0,),
        min_pixels=64 * 64,
        max_pixels=96 * 96,
    )
    create(ScratchModel(family=family, vocab_size=320, text=text, vision=vision), CORPUS * 4, path)


def qwen_vl_ids(ids: Mapping[str, int]) -> dict[str, int]:
    """Name the ids of `QWEN_VL_TOKENS` as the configurations of Qwen-VL models do."""
    names = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    names |= {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    return {name: ids[token] for name, token in names.items()}


def _tokenizer(special: Sequence[str], opening: str | None, named: dict[str, str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320 + len(special), special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    if opening is not None:
        pair = [(opening, tokenizer.token_to_id(opening))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{opening} $A", special_tokens=pair)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=opening,
        eos_token=special[1],
        pad_token=special[0],
        extra_special_tokens=named or [token for token in special if token != opening],
    )


def _rename(file: Path, parts: Mapping[str, str]) -> None:
    """Rename weights by the first part that their names begin with."""
    from safetensors.torch import load_file, save_file

    def renamed(name: str) -> str:
        start = next((part for part in parts if name.startswith(part)), "")
        return parts.get(start, start) + name.removeprefix(start)

    save_file({renamed(name): tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
