"""The text forms of `mini-mmeb`: what is written for a row of the data package, in training and in evaluation alike.

Pictures need no form: their encoded bytes go to `mllm_embed.media`, which puts transparent sprites on white.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
"""One row of a parquet file, by column name."""

MAX_TAGS = 4
MAX_FIGURE_WORDS = 60
CHART_QUESTIONS = {
    "mark": "Which mark is drawn?",
    "x": "What is on the x axis?",
    "y": "What is on the y axis?",
    "color": "What does the colour show?",
}
"""Questions about charts by what they ask for: the mark, or an encoding channel of Vega-Lite."""
SIDES = ("left", "middle", "right")
"""The boxes of an NLVR scene."""
_COLOURS = {"#0099ff": "blue"}
_HAIR = re.compile(r"(?:with|and) (?P<look>(?:(?! and ).)+ hair)$")
_SKIN = re.compile(r" with (?P<look>\w+ skin)")


def emoji_name(concept: Row) -> str:
    """Return the English name of a row of `emoji_concepts.parquet`, e.g. `waving hand: dark skin tone`."""
    return str(concept["label_en"])


def keywords_text(concept: Row) -> str:
    """Return the English keywords of a row of `emoji_concepts.parquet`, e.g. `boulder, heavy, solid, stone, tough`."""
    return ", ".join(concept["tags_en"])


def icon_text(row: Row) -> str:
    """Return `name, tag, tag` of a row of `icons.parquet`: English tags only, at most `MAX_TAGS`, none twice."""
    words = [str(row["name"])]
    for tag in row["tags"] or ():
        if len(words) > MAX_TAGS:
            break
        if _is_english(tag) and tag.lower() not in {word.lower() for word in words}:
            words.append(tag)
    return ", ".join(words)


def figure_text(row: Row) -> str:
    """Return the alt text of a row of `openstax_figures-*.parquet`, cut to its first `MAX_FIGURE_WORDS` words."""
    return " ".join(str(row["alt"]).split()[:MAX_FIGURE_WORDS])


def caption_text(row: Row) -> str:
    """Return the caption of a row of `openstax_figures-*.parquet`, cut like the alt text; empty where it has none."""
    return " ".join(str(row["caption"] or "").split()[:MAX_FIGURE_WORDS])


def story_text(page: Row) -> str:
    """Return the English text of a row of `story_pages.parquet`."""
    return " ".join(str(page["text_en"]).split())


def class_name(label: str) -> str:
    """Return a class label as words: `people-body` becomes `people body`."""
    return label.replace("-", " ").replace("_", " ")


def tone_edit(tone: str) -> str:
    """Return the instruction text that changes a picture's skin tone, for one of the five tones (`medium-dark`)."""
    return f"the same, with {class_name(tone)} skin tone"


def gender_edit(gender: str) -> str:
    """Return the instruction text that shows the same as a `woman` or a `man`."""
    return f"the same, as a {gender}"


def clip_edit(before: str, after: str) -> str | None:
    """Return the instruction text that turns one clip into another, from their captions; None unless one thing differs.

    Captions are `a man with dark skin and pink bangs hair, wearing plate armour, white pants, walking, facing left`.
    """
    old, new = before.split(", "), after.split(", ")
    changed = [place for place, (one, other) in enumerate(zip(old, new, strict=False)) if one != other]
    if len(old) != len(new) or len(changed) != 1:
        return None
    phrase = new[changed[0]]
    if changed != [0]:
        return f"the same, wearing {phrase.removeprefix('wearing ')}"
    return _person_edit(old[0], phrase)


def _person_edit(old: str, new: str) -> str:
    old_hair, hair = _HAIR.search(old), _HAIR.search(new)
    if hair and (not old_hair or old_hair["look"] != hair["look"]):
        return f"the same, with {hair['look']}"
    if skin := _SKIN.search(new):
        return f"the same, with {skin['look']}"
    return f"the same, as {new.partition(' with ')[0]}"


def object_text(colour: str, shape: str, box: int) -> str:
    """Return how an object of an NLVR scene is named: `the yellow circle in the left box`."""
    return f"the {_COLOURS.get(colour.lower(), colour.lower())} {shape} in the {SIDES[box]} box"


def look_text(side: str) -> str:
    """Return the instruction that reads one side of a picture of two things."""
    return f"Look at the {side} object."


def chart_answer(aggregate: str, field: str) -> str:
    """Return what a chart's channel shows, in words: its field, or what is computed where there is no field."""
    return class_name(field or aggregate)


def truth_text(label: bool) -> str:
    """Return the answer text of an NLVR row's label."""
    return "true" if label else "false"


def _is_english(tag: str) -> bool:
    """Tags of some sets are Chinese, symbols, or codes such as `dhis2:machinery`."""
    return tag.isascii() and ":" not in tag and any(letter.isalpha() for letter in tag)
