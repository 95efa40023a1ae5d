from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.lexical import WordTable

pytestmark = pytest.mark.fast

PIECES = ("red", "Ġred", "ĠRed", "RED", "Ġcircle", "ing", ".", "Ġ", "Ġ42", "don't", "_x", "Ċ", "é", "Ã©", "Ã", "tool")
"""Of a byte-level vocabulary: `Ġ` is a space, `Ċ` a line break, `Ã©` the bytes of é, `Ã` half; `tool` is added."""


@pytest.fixture
def table(tmp_path: Path) -> WordTable:
    vocabulary = {piece: number for number, piece in enumerate(PIECES)} | {"<|end|>": len(PIECES)}
    added = {"id": vocabulary["<|end|>"], "content": "<|end|>", "special": True}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    plain = {**added, "id": vocabulary["tool"], "content": "tool", "special": False}
    file = tmp_path / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "."}
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    file.write_text(json.dumps({"version": "1.0", "added_tokens": [plain, added], "decoder": decoder, "model": model}))
    return WordTable(file)


def logits(padding: int = 0, **of: float) -> NDArray[np.float32]:
    """Logits of -1, except for the pieces that are named by their number: `_0=2.0`."""
    values = np.full(len(PIECES) + 1 + padding, -1, dtype=np.float32)
    for name, value in of.items():
        values[int(name[1:])] = value
    return values


def test_a_word_weighs_as_much_as_its_heaviest_piece(table: WordTable) -> None:
    weights = table.weigh(logits(_0=1, _1=3, _2=2, _3=0.5, _4=2), 10)
    assert weights == pytest.approx({"red": np.log(4), "circle": np.log(3)})
    assert list(weights) == ["red", "circle"]


def test_only_the_heaviest_words_are_given(table: WordTable) -> None:
    assert list(table.weigh(logits(_0=1, _4=2, _5=3, _8=4), 2)) == ["42", "ing"]


def test_logits_below_zero_weigh_nothing(table: WordTable) -> None:
    assert table.weigh(logits(_0=0, _4=0.01), 10) == pytest.approx({"circle": np.log1p(0.01)})


def test_control_tokens_punctuation_and_parts_of_letters_are_no_words(table: WordTable) -> None:
    assert table.weigh(np.full(len(PIECES) + 1, 9, dtype=np.float32), 99).keys() == {"red", "circle", "ing", "42", "é"}


def test_rows_of_the_head_beyond_the_vocabulary_are_padding(table: WordTable) -> None:
    values = logits(padding=40, _0=1)
    values[-40:] = 99
    assert list(table.weigh(values, 10)) == ["red"]


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(IncompatibleCheckpoint, match="not a readable tokenizer"):
        WordTable(tmp_path / "tokenizer.json").weigh(np.zeros(3, dtype=np.float32), 1)
