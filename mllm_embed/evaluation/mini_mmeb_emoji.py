"""Tasks of `mini-mmeb` on emoji: names by style, the same concept in another style, another tone or gender, groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.data_folder import DataFolder, Row
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_classes import Labelled, class_part
from mllm_embed.evaluation.mini_mmeb_pairs import Pair, picture_target
from mllm_embed.evaluation.mini_mmeb_rows import emoji_name, gender_edit, tone_edit
from mllm_embed.evaluation.pools import Selection, build_pool, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

IMAGES = ("emoji_images-*.parquet", ("image_id", "concept_id", "style", "image", "split"))
CONCEPTS = (
    "emoji_concepts.parquet",
    ("concept_id", "label_en", "group", "subgroup", "base_id", "family_id", "skin_tones", "gender", "split"),
)
DIRECTIONS = (("noto", "fluent-3d"), ("fluent-flat", "openmoji-color"), ("openmoji-black", "noto"))
_OTHER_GENDER = {"woman": "man", "man": "woman"}
_NEUTRAL = {"woman": "person", "man": "person", "women": "people", "men": "people"}


@dataclass(frozen=True, slots=True)
class Emoji:
    """One picture of one concept in one style."""

    image_id: str
    style: str
    picture: bytes
    split: str
    concept_id: str
    concept: Row


Styles = dict[str, list[Emoji]]


def read_emoji(data: DataFolder, selection: Selection) -> Styles:
    """Return the usable pictures by style, styles in alphabetical order."""
    concepts = {row["concept_id"]: row for row in data.rows(*CONCEPTS)}
    styles: Styles = defaultdict(list)
    for row in data.rows(*IMAGES):
        concept = concepts.get(row["concept_id"])
        if concept is not None and selection.is_usable(row["split"]):
            emoji = Emoji(row["image_id"], row["style"], row["image"], row["split"], row["concept_id"], concept)
            styles[row["style"]].append(emoji)
    return dict(sorted(styles.items()))


def named(emoji: Sequence[Emoji]) -> list[Pair]:
    """Pictures with their English names."""
    return [Pair(one.image_id, emoji_name(one.concept), one.image_id, one.picture, one.split) for one in emoji]


def style_to_style(styles: Styles, selection: Selection, size: int | None, source: str, target: str) -> Part:
    """Pictures in one style ask for the same concept in another; concepts drawn in both are eligible."""
    sources = {one.concept_id: one for one in styles.get(source, ())}
    both = [one for one in styles.get(target, ()) if one.concept_id in sources]
    pool = build_pool(both, selection, size, name=lambda one: one.image_id, split=lambda one: one.split)
    queries, train = [], 0
    for place, one in enumerate(pool):
        train += one.split == "train"
        if one.split == "train" and train > selection.train_queries:
            continue
        item = EmbedInput((Image(sources[one.concept_id].picture),), get_task("image-to-image").query)
        queries.append(Query(item, (place,), selection.slices(one.split)))
    return Part(f"{source} -> {target}", tuple(queries), tuple(picture_target(one.picture) for one in pool))


def change_tone(styles: Styles, selection: Selection, size: int | None, style: str) -> Part:
    """A picture without skin tone and a wish ask for the picture with that tone."""
    by_concept = {one.concept_id: one for one in styles[style]}
    edits = {
        one.image_id: _Edit(by_concept[one.concept["base_id"]], tone_edit(one.concept["skin_tones"][0]))
        for one in styles[style]
        if len(one.concept["skin_tones"]) == 1 and one.concept["base_id"] in by_concept
    }
    return _edited(styles, selection, size, style, edits)


def change_gender(styles: Styles, selection: Selection, size: int | None, style: str) -> Part:
    """A picture of a man and a wish ask for the same as a woman, and the other way round; all else stays."""
    by_look = {_look(one, one.concept["gender"]): one for one in styles[style] if one.concept["gender"]}
    edits = {
        one.image_id: _Edit(by_look[_look(one, other)], gender_edit(one.concept["gender"]))
        for one in styles[style]
        if (other := _OTHER_GENDER.get(one.concept["gender"])) and _look(one, other) in by_look
    }
    return _edited(styles, selection, size, style, edits)


@dataclass(frozen=True, slots=True)
class _Edit:
    base: Emoji
    wish: str


def _look(emoji: Emoji, gender: str) -> tuple[str, tuple[str, ...], str, str]:
    """What two pictures of a man and of a woman share; the name tells running from running to the right."""
    words = emoji_name(emoji.concept).lower().replace(":", "").replace(",", "").split()
    neutral = " ".join(_NEUTRAL.get(word, word) for word in words)
    return emoji.concept["family_id"], tuple(emoji.concept["skin_tones"]), neutral, gender


def _edited(styles: Styles, selection: Selection, size: int | None, style: str, edits: Mapping[str, _Edit]) -> Part:
    """A picture and a wish ask for the edited picture.

    Candidates are the style's pool and, for each query, all pictures of its family, the one asked with among them.

    Args:
        styles: all pictures.
        selection: what is held out.
        size: of the pool.
        style: the style of all pictures.
        edits: by the id of an edited picture, what it was made of and the wish in words.
    """
    emoji = styles[style]
    pool = build_pool(emoji, selection, size, name=lambda one: one.image_id, split=lambda one: one.split)
    wanted = [one for one in emoji if selection.is_held_out(one.split) and one.image_id in edits]
    wanted = hash_order(wanted, lambda one: one.image_id)[: selection.pool_limit]
    families: dict[str, list[Emoji]] = defaultdict(list)
    for one in emoji:
        families[one.concept["family_id"]].append(one)
    candidates = list(pool)
    places = {one.image_id: place for place, one in enumerate(pool)}
    queries = []
    for one in wanted:
        family = families[one.concept["family_id"]]
        for member in family:
            if member.image_id not in places:
                places[member.image_id] = len(candidates)
                candidates.append(member)
        edit = edits[one.image_id]
        item = EmbedInput((Image(edit.base.picture), Text(edit.wish)), get_task("composed").query)
        extras = tuple(places[member.image_id] for member in family if places[member.image_id] >= len(pool))
        queries.append(Query(item, (places[one.image_id],), selection.slices(one.split), extras))
    return Part(style, tuple(queries), tuple(picture_target(one.picture) for one in candidates), len(pool))


def groups(data: DataFolder, styles: Styles, selection: Selection, column: str) -> Part:
    """Pictures ask for the name of their `group` or `subgroup`, among the names of all."""
    held_out = [
        one for emoji in styles.values() for one in emoji if selection.is_held_out(one.split) and one.concept[column]
    ]
    asked = [
        Labelled((Image(one.picture),), one.concept[column], (*selection.slices(one.split), one.style))
        for one in hash_order(held_out, lambda one: one.image_id)[: selection.pool_limit]
    ]
    return class_part(asked, (row[column] for row in data.rows(*CONCEPTS) if row[column]))
