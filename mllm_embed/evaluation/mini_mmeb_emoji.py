"""Tasks of `mini-mmeb` on emoji: names by style, the same concept in another style, another skin tone, groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.data_folder import DataFolder, Row
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_pairs import Pair, picture_target, text_target
from mllm_embed.evaluation.mini_mmeb_rows import class_name, emoji_name, tone_edit
from mllm_embed.evaluation.pools import Selection, build_pool, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

IMAGES = ("emoji_images-*.parquet", ("image_id", "concept_id", "style", "image", "split"))
CONCEPTS = (
    "emoji_concepts.parquet",
    ("concept_id", "label_en", "group", "base_id", "family_id", "skin_tones"),
)
DIRECTIONS = (("noto", "fluent-3d"), ("fluent-flat", "openmoji-color"), ("openmoji-black", "noto"))


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
    """A picture without skin tone and a wish ask for the picture with that tone.

    Candidates are the style's pool and, for each query, all pictures of its family, the one asked with among them.
    """
    emoji = styles[style]
    pool = build_pool(emoji, selection, size, name=lambda one: one.image_id, split=lambda one: one.split)
    by_concept = {one.concept_id: one for one in emoji}
    wanted = [one for one in emoji if selection.is_held_out(one.split) and len(one.concept["skin_tones"]) == 1]
    wanted = [one for one in wanted if one.concept["base_id"] in by_concept]
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
        base = by_concept[one.concept["base_id"]]
        edit = tone_edit(one.concept["skin_tones"][0])
        item = EmbedInput((Image(base.picture), Text(edit)), get_task("composed").query)
        extras = tuple(places[member.image_id] for member in family if places[member.image_id] >= len(pool))
        queries.append(Query(item, (places[one.image_id],), selection.slices(one.split), extras))
    return Part(style, tuple(queries), tuple(picture_target(one.picture) for one in candidates), len(pool))


def groups(data: DataFolder, styles: Styles, selection: Selection) -> Part:
    """Pictures ask for the name of their group, among the names of all groups."""
    names = sorted({class_name(row["group"]) for row in data.rows(*CONCEPTS) if row["group"]})
    held_out = [
        one for emoji in styles.values() for one in emoji if selection.is_held_out(one.split) and one.concept["group"]
    ]
    queries = [
        Query(
            EmbedInput((Image(one.picture),), get_task("classification").query),
            (names.index(class_name(one.concept["group"])),),
            (*selection.slices(one.split), one.style),
        )
        for one in hash_order(held_out, lambda one: one.image_id)[: selection.pool_limit]
    ]
    return Part("all", tuple(queries), tuple(text_target(name) for name in names))
