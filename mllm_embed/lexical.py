"""Weights over a vocabulary -> weights of words that people read."""

from __future__ import annotations

import unicodedata
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mllm_embed.prompts import load_tokenizer


class WordTable:
    """The words that a tokenizer's vocabulary spells; read when first used.

    Pieces that differ in their case, or in the space before them, spell one word. Control tokens, added tokens,
    punctuation and fragments of characters spell none. What the vocabulary holds only in parts is known by its parts.

    Args:
        tokenizer_file: the model's `tokenizer.json`.
    """

    def __init__(self, tokenizer_file: Path) -> None:
        self._file = tokenizer_file

    def weigh(self, logits: NDArray[np.float32], most: int) -> dict[str, float]:
        """Return the heaviest words, the heaviest first.

        A piece weighs log(1 + max(0, logit)) and a word as much as its heaviest piece, as in SPLADE and its relatives
        (LexLIP, PromptReps); words without weight are left out.

        Args:
            logits: of the language model's head, float32, shape [V]; V may exceed the vocabulary, as padding.
            most: how many words.
        """
        words, word_of = self._words
        known = logits[: len(word_of)]
        pieces = np.flatnonzero((word_of[: len(known)] >= 0) & (known > 0))
        heaviest = np.zeros(len(words), dtype=np.float32)
        np.maximum.at(heaviest, word_of[pieces], np.log1p(known[pieces]))
        # Equal weights in the order of the vocabulary, so that the choice does not depend on the sort.
        chosen = np.argsort(-heaviest, kind="stable")[:most]
        return {words[index]: float(heaviest[index]) for index in chosen if heaviest[index] > 0}

    @cached_property
    def _words(self) -> tuple[list[str], NDArray[np.intp]]:
        """The words, and which of them each token id spells: an index, or -1."""
        tokenizer = load_tokenizer(self._file)
        added = tokenizer.get_added_tokens_decoder()
        size = 1 + max(tokenizer.get_vocab().values())
        texts = tokenizer.decode_batch([[token_id] for token_id in range(size)])
        places: dict[str, int] = {}
        word_of = np.full(size, -1, dtype=np.intp)
        for token_id, text in enumerate(texts):
            word = text.strip().casefold()
            if token_id not in added and _is_readable(word):
                word_of[token_id] = places.setdefault(word, len(places))
        return list(places), word_of


def _is_readable(word: str) -> bool:
    """Return whether a text is letters, digits and the marks on them, and nothing else."""
    return any(map(str.isalnum, word)) and all(unicodedata.category(letter)[0] in "LMN" for letter in word)
