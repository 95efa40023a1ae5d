"""The chat template of an exported model makes the prompt that the model was trained on, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mllm_embed.families import FAMILIES
from mllm_embed.model_dir import open_model_dir
from mllm_embed.prompts import PromptRenderer
from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed.types import EmbedInput
from mllm_embed_training.chat_template import chat_template

PICTURE = PIL.Image.new("RGB", (60, 60))
CONTENTS = (["a cat"], [PICTURE], [PICTURE, "a cat"], ["a", PICTURE, "cat", PICTURE])


@pytest.mark.parametrize("family", FAMILIES)
def test_messages_become_the_trained_prompt(family: str, tiny_model: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    plain = open_model_dir(tiny_model(family))
    tokenizer: Any = AutoTokenizer.from_pretrained(plain.weights)
    known = {token.content for token in tokenizer.added_tokens_decoder.values()}
    for name, template in plain.family.templates.items():
        if name == "e5-v" and "<|eot_id|>" not in known:
            continue  # a prompt for another language model's tokens
        model_dir = plain.with_recipe(template=name, template_version=template.version)
        renderer, jinja = PromptRenderer(model_dir.tokenizer_file, plain.family, template), chat_template(model_dir)
        for content in CONTENTS:
            for instruction in ("Find it", "Find it.", ""):
                messages = [{"role": "user", "content": [as_part(piece) for piece in content]}]
                messages += [{"role": "system", "content": instruction}] if instruction else []
                theirs = tokenizer.apply_chat_template(messages, chat_template=jinja, return_dict=False)
                images = [piece for piece in content if isinstance(piece, PIL.Image.Image)]
                ours = renderer.render(EmbedInput.of(*content), instruction or get_task(DEFAULT).query, images)
                assert list(ours.token_ids) == theirs, (name, content, instruction)


def as_part(piece: object) -> dict[str, Any]:
    return {"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image"}


def test_vllm_hands_its_parts_over_as_they_are(tiny_model: Callable[[str], Path]) -> None:
    hf = pytest.importorskip("vllm.renderers.hf", exc_type=ImportError)
    jinja = chat_template(open_model_dir(tiny_model("qwen3_vl")))
    # The other format joins a picture and a text with a line break, which is another prompt.
    assert hf._detect_content_format(jinja, default="string") == "openai"
