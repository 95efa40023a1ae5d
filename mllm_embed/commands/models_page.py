"""Families and published embedders as Markdown, from the code: python -m mllm_embed.commands.models_page."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from mllm_embed.families import FAMILIES, Family
from mllm_embed.published import PUBLISHED, Published

_HEAD = """# Models

Written by `make docs` from [the families](../mllm_embed/families/__init__.py) and
[the published embedders](../mllm_embed/published.py); a test holds that it is up to date. `mllm-embed models` lists
both.

## Families

A family is what an instruction-tuned LVLM needs to become an embedder: how its prompt is written, what stands for a
picture, which layers LoRA adapts. Its name is the `model_type` in `config.json`. An LVLM without a recipe is run with
its family's default template (in bold), and the log says so.

On transformers a test holds, for each family on a tiny random model, that token ids are those of the family's own
processor, that the picture rule counts like it, and that a batch equals its items one by one to 1e-5. Where vLLM serves
a family, both engines are compared in float32: text, a picture, both, two pictures, with and without a LoRA adapter,
control tokens typed by a user; cosines are at least 0.9999. vLLM refuses what was not compared: `--backend auto` then
takes transformers.
"""
_MODES = """
Modes of a recipe, the family's own first, and the linear layers that LoRA adapts: those of the language model, and
where asked for those of the tower.

"""
_PUBLISHED = """
## Published embedders

A checkpoint opened under its hub name is run the way of its authors: their prompt word for word, pooling, position ids,
attention and pixel limits. *verified* is said of what a test compares with numbers of the authors' code, or of a
library version that was found to give the same, *from the card* of what their card, paper or code says and nobody has
compared here. No weights were downloaded for this table.

"""
_NOTES = """
VLM2Vec's prompt on Qwen2-VL has no marks around a picture, so that its position ids are those of text; transformers 5
would number them in three dimensions. Recipes record this as `"position_mode": "1d"`. vLLM numbers them in its own way
and refuses such a recipe; `--backend auto` then takes transformers.

Qwen3-VL-Embedding's own code puts a full stop behind an instruction that ends without punctuation, and so does its
template here. GME's default instruction is `You are a helpful assistant.` DSE-Qwen2 reads a page with the text `What
is shown in this image?` and a query as a blank picture of 28 x 28 pixels and a text that begins with `Query: `: send
them so.

A token of `mllama` that has no picture before it passes the layers of cross attention unchanged, as in the code of its
authors; transformers alone lets it attend to every picture of the batch, later ones and padding included. transformers
5 also reads the tower one layer later than they do, and than transformers 4.48 did, with which mmE5 was made. Both are
put right when the model is loaded, so vectors of pictures differ from those of transformers 5 alone.

A checkpoint that names code of its own to be read with (`auto_map` in its configuration) is refused, unless it is a
published embedder above or carries a recipe: remote code is never run, and no option turns it on. That concerns
Phi-3.5-V, and Phi-4-multimodal as Microsoft publishes it: `phi4_multimodal` reads transformers' own format. Beyond
4,096 tokens its positions turn at other frequencies, and transformers decides that for a whole batch: prompts on both
sides of the limit meet in one only where `batch_tokens` is above 8,192 (it is 4,096), or in a chunk of training.

vLLM 0.32 looks for the towers of the LLaVA families under the names that checkpoints on the hub use. `mllm-embed
export` and training write the names that they have read. A LLaVA that transformers 5 has made from nothing has others:
vLLM refuses it, `--backend auto` takes transformers.

Adapters alone (a directory with `adapter_config.json` and no `config.json`) are run on the base that they name; those
saved under transformers 4, which called modules otherwise, are attached all the same. vLLM runs no DoRA: `--backend
auto` takes transformers, or merge such an adapter with `mllm-embed export`.
"""


def models_page() -> str:
    """Return the page."""
    families = list(FAMILIES.values())
    prompts = [(f"`{f.name}`", _slot(f), _templates(f), _pictures(f)) for f in families]
    served = [(f"`{f.name}`", _vllm(f), _lora(f), f"`{f.language_model}`", _tower(f)) for f in families]
    modes = [(f"`{f.name}`", *_modes(f)) for f in families]
    published = [_published(entry) for entry in PUBLISHED.values()]
    parts = [
        _HEAD,
        _table(("family", "a picture in the prompt", "templates", "pictures"), prompts),
        "",
        _table(("family", "vLLM", "LoRA on vLLM", "language model", "tower and projector"), served),
        _MODES + _table(("family", "position ids", "attention", "LoRA", "LoRA in the tower"), modes),
        _PUBLISHED + _table(("hub name", "family, template", "vector", "licence", "state", "source"), published),
        _NOTES,
    ]
    return "\n".join(parts).rstrip() + "\n"


def _slot(family: Family) -> str:
    return "`" + "".join(family.image_slot) + "`"


def _templates(family: Family) -> str:
    names = [f"**{name}**" if name == family.default_template else name for name in family.templates]
    return ", ".join(names)


def _pictures(family: Family) -> str:
    """Return what the first line of the family's own file says."""
    text = sys.modules[f"mllm_embed.families.{family.name}"].__doc__ or ""
    return text.partition("\n")[0].partition(": ")[2].rstrip(".")


def _vllm(family: Family) -> str:
    if family.vllm.refused is not None:
        return f"no: {family.vllm.refused}"
    return "yes" if family.vllm.max_images is None else f"yes, {family.vllm.max_images} picture in an input"


def _lora(family: Family) -> str:
    if family.vllm.refused is not None:
        return "-"
    if not family.vllm.lora:
        return "no: merge it"
    return "language model and tower" if family.vllm.tower_lora else "language model"


def _tower(family: Family) -> str:
    return ", ".join(f"`{part}`" for part in (family.tower, family.projector) if part is not None)


def _modes(family: Family) -> Iterable[str]:
    lists = (family.position_modes, family.attention_modes, family.lora_targets, family.tower_targets)
    return map(_listed, lists)


def _published(entry: Published) -> tuple[str, ...]:
    state = f"not served: {entry.refused}" if entry.refused is not None else entry.state
    if entry.verified is not None:
        state = f"verified: {entry.verified}"
    run = "-" if entry.family is None else f"`{entry.family}`, {entry.template}"
    changed = [entry.pooling, entry.position_mode, entry.attention]
    vector = ", ".join([str(entry.dimensions), *(mode for mode in changed if mode not in (None, "last_token"))])
    return f"`{entry.name}`", run, vector, entry.licence or "not found", state, entry.source


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(models_page())
