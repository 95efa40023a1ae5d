"""Texts as people really write them: with slips of the keyboard, in capitals, in another order, in other words.

Every function gives the same text for the same text, on every machine: choices are made by SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mllm_embed.evaluation.pools import hash_number, hash_order

_TYPO_EVERY = 3
"""Of so many words that are long enough, one is mistyped."""
_LEAST_LETTERS = 4
_LONG_WORDS = re.compile(rf"[^\W\d_]{{{_LEAST_LETTERS},}}")
_SHORT_TEXT = 10
"""Texts of at most so many words are put into a frame."""
_SYNONYMS = {
    "skin tone": "complexion",
    "man": "guy",
    "men": "guys",
    "woman": "lady",
    "women": "ladies",
    "person": "human",
    "baby": "infant",
    "girl": "young lady",
    "child": "kid",
    "mechanic": "repairer",
    "flag": "banner",
    "telephone": "phone",
    "mail": "post",
    "envelope": "letter",
    "cart": "trolley",
    "computer": "PC",
    "home": "house",
    "clothes": "clothing",
    "country": "nation",
    "remove": "delete",
    "file": "document",
    "power": "energy",
    "shows": "depicts",
    "shown": "depicted",
    "showing": "depicting",
    "labeled": "marked",
    "graph": "plot",
    "image": "picture",
    "photo": "photograph",
    "figure": "illustration",
    "large": "big",
    "small": "little",
    "center": "middle",
    "titled": "headed",
    "reads": "says",
    "various": "several",
    "pictured": "depicted",
}
"""English words and what else they are called; the words are frequent ones of the held-out texts."""
_KNOWN = re.compile(rf"\b({'|'.join(sorted(_SYNONYMS, key=len, reverse=True))})\b", re.IGNORECASE)


def typos(text: str) -> str:
    """Mistype about every third word of four letters or more, at least one: letters swapped, left out or doubled."""
    words = [match.span() for match in _LONG_WORDS.finditer(text)]
    chosen = hash_order(words, lambda span: f"{text} {span}")[: -(-len(words) // _TYPO_EVERY)]
    for start, end in sorted(chosen, reverse=True):  # from the end, so that earlier places stay right
        text = text[:start] + _mistyped(text[start:end]) + text[end:]
    return text


def upper_case(text: str) -> str:
    """Write everything in capitals."""
    return text.upper()


def word_order(text: str) -> str:
    """Put the words into another order."""
    words = text.split()
    order = hash_order(range(len(words)), lambda place: f"{text} {place}")
    if order == sorted(order):
        order = order[1:] + order[:1]
    return " ".join(words[place] for place in order)


def paraphrase(text: str) -> str:
    """Say it in other words by rule: synonyms for frequent words, and "a picture of" before a short text."""
    other = _KNOWN.sub(_synonym, text)
    return f"a picture of {other}" if len(text.split()) <= _SHORT_TEXT else other


PERTURBATIONS: Mapping[str, Callable[[str], str]] = {
    "typos": typos,
    "upper case": upper_case,
    "word order": word_order,
    "paraphrase": paraphrase,
}
"""All perturbations by the name that reports call them."""


def _mistyped(word: str) -> str:
    """Swap two neighbours that differ, leave a letter out, or double one; the first letter stays."""
    kind, place = hash_number(f"kind {word}") % 3, 1 + hash_number(f"place {word}") % (len(word) - 2)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    if kind == 0 and letter != after[0]:
        return before + after[0] + letter + after[1:]
    return before + after if kind == 1 else before + 2 * letter + after


def _synonym(match: re.Match[str]) -> str:
    found = match[0]
    other = _SYNONYMS[found.lower()]
    return other[0].upper() + other[1:] if found[0].isupper() else other
