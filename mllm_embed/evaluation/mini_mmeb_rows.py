"""The text forms of `mini-mmeb`: what is written for a row of the data package, in training and in evaluation alike.

Pictures need no form: their encoded bytes go to `mllm_embed.media`, which puts transparent sprites on white.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
"""One row of a parquet file, by column name."""

MAX_TAGS = 4
MAX_FIGURE_WORDS = 60


def emoji_name(concept: Row) -> str:
    """Return the English name of a row of `emoji_concepts.parquet`, e.g. `waving hand: dark skin tone`."""
    return str(concept["label_en"])


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


def story_text(page: Row) -> str:
    """Return the English text of a row of `story_pages.parquet`."""
    return " ".join(str(page["text_en"]).split())


def class_name(label: str) -> str:
    """Return a class label as words: `people-body` becomes `people body`."""
    return label.replace("-", " ").replace("_", " ")


def tone_edit(tone: str) -> str:
    """Return the instruction text that changes a picture's skin tone, for one of the five tones (`medium-dark`)."""
    return f"the same, with {class_name(tone)} skin tone"


def truth_text(label: bool) -> str:
    """Return the answer text of an NLVR row's label."""
    return "true" if label else "false"


def _is_english(tag: str) -> bool:
    """Tags of some sets are Chinese, symbols, or codes such as `dhis2:machinery`."""
    return tag.isascii() and ":" not in tag and any(letter.isalpha() for letter in tag)
