"""A model's prompt format as a chat template, for servers that know chat messages only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mllm_embed.prompts import MARKER, PromptRenderer
from mllm_embed.tasks import DEFAULT, get_task

if TYPE_CHECKING:
    from mllm_embed.families import Template
    from mllm_embed.model_dir import ModelDir

_VARIABLES = {
    "{instruction}": "ns.instruction",
    "{content}": "ns.content",
    "{images}": "ns.images",
    "{texts}": "ns.texts",
    "{kind}": "kind",
}


def chat_template(model_dir: ModelDir) -> str:
    """Write a model's prompt format as a chat template: system messages are the instruction, the others the content.

    Servers that know chat messages only (stock vLLM's `messages`, sentence-transformers) then make the prompts that the
    model was trained on, except that they honour control tokens inside user text. Without a system message the default
    task's instruction is used, as `mllm-embed serve` does.
    """
    family, template = model_dir.family, model_dir.template
    slot = family.image_margin + "".join(template.image_slot or family.image_slot) + family.image_margin
    opening, closing = PromptRenderer(model_dir.tokenizer_file, family, template).surroundings
    with_images = _frame(template.text, template)
    alone = with_images if template.text_alone is None else _frame(template.text_alone, template)
    body = with_images if alone == with_images else f"(({with_images}) if ns.images else ({alone}))"
    return _gather(slot, template) + f"{{{{- {json.dumps(opening)} ~ {body} ~ {json.dumps(closing)} -}}}}"


def _gather(slot: str, template: Template) -> str:
    """Read the messages: what fills each marker of the format."""
    picture, default = json.dumps(slot), json.dumps(get_task(DEFAULT).query)
    alone, image, both = map(json.dumps, template.kinds)
    lines = [
        "{%- set ns = namespace(instruction='', content='', images='', texts='') -%}",
        "{%- for message in messages -%}",
        "{%- if message.content is string -%}",
        _add_text("message.content"),
        # vLLM hands parts over as they are only to a template that loops over `message.content` itself; for another
        # one it joins them with line breaks.
        "{%- else -%}{%- for part in message.content -%}{%- if 'image' in part.type -%}",
        f"{{%- set ns.images = ns.images ~ {picture} -%}}{{%- set ns.content = ns.content ~ {picture} -%}}",
        "{%- else -%}",
        _add_text("part.text"),
        "{%- endif -%}{%- endfor -%}{%- endif -%}{%- endfor -%}",
        f"{{%- set ns.instruction = ns.instruction or {default} -%}}",
        f"{{%- set kind = ({both} if ns.texts else {image}) if ns.images else {alone} -%}}",
    ]
    if template.full_stop:  # templates cannot ask for the class of a character: what is no letter or digit ends it
        lines.append(
            "{%- set ns.instruction = ns.instruction.strip() -%}{%- if ns.instruction[-1:].isalnum() -%}"
            "{%- set ns.instruction = ns.instruction ~ '.' -%}{%- endif -%}"
        )
    return "".join(lines)


def _add_text(text: str) -> str:
    """Add text to the instruction if the message is the system's, else to the content."""
    return (
        f"{{%- if message.role == 'system' -%}}{{%- set ns.instruction = ns.instruction ~ {text} -%}}"
        f"{{%- else -%}}{{%- set ns.content = ns.content ~ {text} -%}}"
        f"{{%- if {text} -%}}{{%- set ns.texts = ns.texts ~ (' ' if ns.texts else '') ~ {text} -%}}{{%- endif -%}}"
        "{%- endif -%}"
    )


def _frame(text: str, template: Template) -> str:
    """Write control text as an expression; see `Template` for when a space or line break is left out."""
    segments = [segment for segment in MARKER.split(text) if segment]
    pieces: list[str] = []
    before: list[str] = []  # the markers since the last piece of control text
    for segment, following in zip(segments, [*segments[1:], ""], strict=True):
        if segment in _VARIABLES:
            pieces.append(_VARIABLES[segment])
            before.append(_VARIABLES[segment])
        elif "{texts}" in template.text and segment in (" ", "\n") and following in _VARIABLES:
            needed = f"({' or '.join(before or ['false'])}) and {_VARIABLES[following]}"
            pieces.append(f"({json.dumps(segment)} if {needed} else '')")
        else:
            pieces.append(json.dumps(segment))
            before = []
    return " ~ ".join(pieces)
