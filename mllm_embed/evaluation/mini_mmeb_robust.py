"""Tasks of `mini-mmeb` on robustness: queries of a retrieval task again, perturbed or attacked, the pool unchanged.

Each part holds one perturbation of the same queries beside the queries as they were (slice `clean`), so that what it
costs is measured on pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import PIL.Image

from mllm_embed.evaluation.attacked_pictures import ATTACKS, Attack, printed_word
from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import CLEAN, Part, Query, item_key
from mllm_embed.evaluation.mini_mmeb_emoji import DIRECTIONS, named, read_emoji, style_to_style
from mllm_embed.evaluation.mini_mmeb_pairs import Pair, figures, icons, image_to_text, picture_target, text_to_image
from mllm_embed.evaluation.mini_mmeb_rows import emoji_name
from mllm_embed.evaluation.perturbed_text import PERTURBATIONS
from mllm_embed.evaluation.pools import Selection, hash_order
from mllm_embed.media import MediaPolicy, load_sync
from mllm_embed.types import Content, EmbedInput, Image, Text

STYLE = "noto"
ASKED = 100
"""Queries of each task that are asked again."""
PRINTED = "printed word"
"""Name of the part whose pictures carry what another candidate is called."""

Change = Callable[[EmbedInput], Content]
"""Takes what is asked with, one text or one picture, and returns what stands for it."""


def names_to_emoji(data: DataFolder, selection: Selection, size: int) -> list[Part]:
    """Perturbed names ask for their emoji."""
    pairs = named(read_emoji(data, selection).get(STYLE, ()))
    return _perturbed(text_to_image(pairs, selection, size), selection)


def words_to_icon(data: DataFolder, selection: Selection, size: int) -> list[Part]:
    """Perturbed names and tags ask for their icon."""
    return _perturbed(text_to_image(icons(data), selection, size), selection)


def text_to_figure(data: DataFolder, selection: Selection) -> list[Part]:
    """Perturbed alternative texts ask for their figure."""
    return _perturbed(text_to_image(figures(data), selection, None), selection)


def emoji_to_emoji(data: DataFolder, selection: Selection, size: int) -> list[Part]:
    """Attacked pictures ask for the same concept in another style, in the first of `DIRECTIONS`."""
    styles = read_emoji(data, selection)
    part = style_to_style(styles, selection, size, *DIRECTIONS[0])
    names = {item_key(picture_target(one.picture)): emoji_name(one.concept) for one in styles[DIRECTIONS[0][1]]}
    return _attacked(part, [names[item_key(item)] for item in part.candidates], selection)


def emoji_to_name(data: DataFolder, selection: Selection, size: int) -> list[Part]:
    """Attacked emoji ask for their name."""
    return _attacked_of_texts(named(read_emoji(data, selection).get(STYLE, ())), selection, size)


def figure_to_text(data: DataFolder, selection: Selection) -> list[Part]:
    """Attacked figures ask for their alternative text."""
    return _attacked_of_texts(figures(data), selection, None)


def _attacked_of_texts(pairs: Sequence[Pair], selection: Selection, size: int | None) -> list[Part]:
    part = image_to_text(pairs, selection, size)
    return _attacked(part, [_text(item) for item in part.candidates], selection)


def _perturbed(part: Part, selection: Selection) -> list[Part]:
    """One part per perturbation, of the same queries: the first in hash order that every perturbation changes."""
    changed = [
        query
        for query in _held_out(part, selection)
        if all(perturb(_text(query.item)) != _text(query.item) for perturb in PERTURBATIONS.values())
    ]
    changes = {name: _text_change(perturb) for name, perturb in PERTURBATIONS.items()}
    return _parts(part, changed[: selection.size(ASKED)], changes)


def _attacked(part: Part, labels: Sequence[str], selection: Selection) -> list[Part]:
    """One part per attack; what is printed is the label of a wrong candidate, `labels` being those of all."""
    asked = _held_out(part, selection)[: selection.size(ASKED)]
    wrong = {item_key(query.item): _wrong_label(query, labels) for query in asked}
    changes = {name: _picture_change(attack, _seeds(name)) for name, attack in ATTACKS.items()}
    return _parts(part, asked, {**changes, PRINTED: _picture_change(printed_word, wrong.__getitem__)})


def _parts(part: Part, asked: Sequence[Query], changes: Mapping[str, Change]) -> list[Part]:
    clean = [replace(query, slices=(CLEAN,), instance=item_key(query.item)) for query in asked]
    parts = []
    for name, change in changes.items():
        changed = [
            replace(query, item=EmbedInput((change(query.item),), query.item.instruction), instance=one.instance)
            for query, one in zip(asked, clean, strict=True)
        ]
        parts.append(replace(part, name=name, queries=(*clean, *changed)))
    return parts


def _text_change(perturb: Callable[[str], str]) -> Change:
    return lambda item: Text(perturb(_text(item)))


def _picture_change(attack: Attack, argument: Callable[[str], str]) -> Change:
    """An attack, and what it is given beside the picture: its seed or its words, by the key of the item."""
    return lambda item: Image(attack(_picture(item), argument(item_key(item))))


def _seeds(name: str) -> Callable[[str], str]:
    return lambda key: f"{name} {key}"


def _text(item: EmbedInput) -> str:
    return next(content.text for content in item.content if isinstance(content, Text))


def _picture(item: EmbedInput) -> PIL.Image.Image:
    picture = next(content for content in item.content if isinstance(content, Image))
    return load_sync(picture, MediaPolicy.local())


def _wrong_label(query: Query, labels: Sequence[str]) -> str:
    right = {labels[place] for place in query.truths}
    key = item_key(query.item)
    return hash_order((label for label in labels if label not in right), lambda label: f"{key} {label}")[0]


def _held_out(part: Part, selection: Selection) -> list[Query]:
    held_out = (query for query in part.queries if selection.prefix in query.slices)
    return hash_order(held_out, lambda query: item_key(query.item))
