"""Tiny random models of the families that training does not make from nothing: a second's work each, all parts real."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mllm_embed.modeling import torch_compat

HEAD_DIM = 32
"""What vLLM's attention on a CPU takes at least."""
SIDE, PATCH = 56, 14
"""Pixels of a crop and of a patch: 16 patches per crop."""
GRIDS = [[56, 112], [112, 56], [112, 112], [56, 168], [168, 56]]

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
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SPECIAL_TOKENS: dict[str, tuple[str, ...]] = {
    "qwen2_5_vl": (*QWEN_TOKENS, *VISION_TOKENS),
    "llava": ("<s>", "</s>", "<unk>", "<image>"),
    "llava_next": ("<s>", "</s>", "<unk>", "<image>"),
    "llava_onevision": (*QWEN_TOKENS, "<image>", "<video>"),
    "internvl": (*QWEN_TOKENS, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    "idefics3": (
        *("<|begin_of_text|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"),
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    ),
    "smolvlm": (
        *("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"),
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    ),
    "gemma3": (
        *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    ),
}
NAMED_TOKENS = {
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "gemma3": {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    },
}
OPENS_WITH = {"llava": "<s>", "llava_next": "<s>", "idefics3": "<|begin_of_text|>", "gemma3": "<bos>"}
"""Families whose tokenizers put a token before every text."""


def make(family: str, corpus: Iterable[str], path: Path, *, seed: int = 0) -> None:
    """Write a model directory with random weights.

    Args:
        family: one of `SPECIAL_TOKENS`.
        corpus: texts on which the tokenizer is trained.
        path: directory to write, made if absent.
        seed: of the random weights.
    """
    torch_compat.apply()
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    path.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(family, corpus)
    ids = dict(zip(SPECIAL_TOKENS[family], tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS[family])), strict=True))
    config = AutoConfig.for_model(family, **CONFIGS[family](ids, len(tokenizer)))
    torch.manual_seed(seed)
    AutoModelForImageTextToText.from_config(config).save_pretrained(path)
    PROCESSORS[family](tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)


def _tokenizer(family: str, corpus: Iterable[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL_TOKENS[family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320 + len(special), special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    if (opening := OPENS_WITH.get(family)) is not None:
        pair = [(opening, tokenizer.token_to_id(opening))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{opening} $A", special_tokens=pair)
    named: Mapping[str, str] = NAMED_TOKENS.get(family, {})
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=opening,
        eos_token=special[1],
        pad_token=special[0],
        extra_special_tokens=dict(named) or [token for token in special if token != opening],
    )


def _qwen2_5_vl(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    vision = {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0}
    return {
        "text_config": {**TEXT, "vocab_size": vocabulary, "rope_parameters": rope},
        "vision_config": {**vision, "window_size": 56, "fullatt_block_indexes": [1]},
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _llava(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {
        "text_config": {**TEXT, "model_type": "llama", "vocab_size": vocabulary, "head_dim": HEAD_DIM},
        "vision_config": {**VISION, "model_type": "clip_vision_model"},
        "image_token_index": ids["<image>"],
        "image_seq_length": (SIDE // PATCH) ** 2,
    }


def _llava_next(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {**_llava(ids, vocabulary), "image_grid_pinpoints": GRIDS}


def _llava_onevision(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {
        "text_config": {**TEXT, "model_type": "qwen2", "vocab_size": vocabulary},
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "image_grid_pinpoints": GRIDS,
        "vision_aspect_ratio": "anyres_max_2",
    }


def _internvl(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    vision = {**VISION, "model_type": "internvl_vision", "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}
    return {
        "text_config": {**TEXT, "model_type": "qwen2", "vocab_size": vocabulary},
        "vision_config": vision,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": (SIDE // PATCH // 2) ** 2,
    }


def _idefics3(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {
        "text_config": {**TEXT, "model_type": "llama", "vocab_size": vocabulary, "head_dim": HEAD_DIM},
        "vision_config": VISION,
        "image_token_id": ids["<image>"],
        "pad_token_id": None,
    }


def _gemma3(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    text = {**TEXT, "vocab_size": vocabulary, "head_dim": HEAD_DIM, "sliding_window": 16}
    return {
        "text_config": {**text, "layer_types": ["sliding_attention", "full_attention"], "pad_token_id": ids["<pad>"]},
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        "mm_tokens_per_image": (SIDE // PATCH // 2) ** 2,
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "image_token_index": ids["<image_soft_token>"],
    }


def _qwen_processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    images, videos = Qwen2VLImageProcessor(size=size), Qwen2VLVideoProcessor(size=size)
    return Qwen2_5_VLProcessor(images, tokenizer, videos)


def _llava_processor(tokenizer: Any) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


def _llava_next_processor(tokenizer: Any) -> Any:
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    crop = {"height": SIDE, "width": SIDE}
    images = LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=crop, image_grid_pinpoints=GRIDS)
    return LlavaNextProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


def _llava_onevision_processor(tokenizer: Any) -> Any:
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    size = {"height": SIDE, "width": SIDE}
    images = LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=GRIDS)
    return LlavaOnevisionProcessor(
        images,
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
    )


def _internvl_processor(tokenizer: Any) -> Any:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    size = {"height": SIDE, "width": SIDE}
    images = GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4)
    videos = InternVLVideoProcessor(size=size)
    return InternVLProcessor(images, tokenizer, videos, image_seq_length=(SIDE // PATCH // 2) ** 2)


def _idefics3_processor(tokenizer: Any) -> Any:
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    images = Idefics3ImageProcessor(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    return Idefics3Processor(images, tokenizer, image_seq_len=(SIDE // PATCH // 2) ** 2)


def _smolvlm_pictures(_tokenizer: Any) -> Any:
    """Its pictures alone: its whole processor needs the package num2words."""
    from transformers import SmolVLMImageProcessor

    return SmolVLMImageProcessor(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})


def _gemma3_processor(tokenizer: Any) -> Any:
    from transformers import Gemma3ImageProcessor, Gemma3Processor

    images = Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    return Gemma3Processor(images, tokenizer, image_seq_length=(SIDE // PATCH // 2) ** 2)


CONFIGS: dict[str, Callable[[Mapping[str, int], int], dict[str, Any]]] = {
    "qwen2_5_vl": _qwen2_5_vl,
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "gemma3": _gemma3,
}
PROCESSORS: dict[str, Callable[[Any], Any]] = {
    "qwen2_5_vl": _qwen_processor,
    "llava": _llava_processor,
    "llava_next": _llava_next_processor,
    "llava_onevision": _llava_onevision_processor,
    "internvl": _internvl_processor,
    "idefics3": _idefics3_processor,
    "smolvlm": _smolvlm_pictures,
    "gemma3": _gemma3_processor,
}
