"""Scores of outputs that are more than one vector: late interaction, and words in common. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import InvalidInput

Multivector = NDArray[np.float32]
"""Unit vectors of an input's tokens, shape [T, D]."""


def maxsim(queries: Sequence[Multivector], documents: Sequence[Multivector]) -> NDArray[np.float32]:
    """Score by late interaction: for each vector of the query the greatest cosine in the document, summed (ColBERT).

    A longer query scores higher; documents of any lengths are comparable under one query.

    Args:
        queries: Q multivectors of one width, each of at least one vector.
        documents: N multivectors of the same width, likewise.

    Returns:
        float32, shape [Q, N].

    Raises:
        InvalidInput: a multivector without vectors, or of another width.
    """
    if not queries or not documents:
        return np.zeros((len(queries), len(documents)), dtype=np.float32)
    width = queries[0].shape[-1]
    for name, multivectors in (("queries", queries), ("documents", documents)):
        for number, multivector in enumerate(multivectors):
            if multivector.ndim != 2 or not len(multivector) or multivector.shape[1] != width:
                raise InvalidInput(
                    f"{name}[{number}] must hold at least one vector of the width {width}, "
                    f"but its shape is {list(multivector.shape)}"
                )
    tokens = np.concatenate(documents).T  # [D, all tokens of all documents]
    starts = np.cumsum([0, *map(len, documents[:-1])])
    return np.stack([np.maximum.reduceat(query @ tokens, starts, axis=1).sum(axis=0) for query in queries])


def shared_words(query: Mapping[str, float], document: Mapping[str, float]) -> dict[str, float]:
    """Return what each word that two lexical outputs share adds to their score, the greatest first."""
    shared = {word: weight * document[word] for word, weight in query.items() if word in document}
    return dict(sorted(shared.items(), key=lambda entry: -entry[1]))


def sparse_dot(query: Mapping[str, float], document: Mapping[str, float]) -> float:
    """Return the dot product of two lexical outputs: exactly the sum of `shared_words`."""
    return math.fsum(shared_words(query, document).values())
