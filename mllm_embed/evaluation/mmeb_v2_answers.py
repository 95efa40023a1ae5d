"""How the video questions of MMEB-V2 are written, and their answers: every set has a way of its own.

Facts: the authors' evaluation, see `mllm_embed.evaluation.mmeb_v2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.public_readers import Record

_LETTERS = "ABCDEFGH"
_YES_NO = ("yes", "no")


@dataclass(frozen=True, slots=True)
class Choice:
    """A question as it is embedded, its answers as candidates, and the place of the right one; -1 if it is none."""

    question: str
    answers: Sequence[str]
    right: int


def video_mme(row: Record) -> Choice:
    """Options are lettered in the record, one to a line in the question; the answer is a letter."""
    question = "\n".join([row["question"], *row["options"]])
    return Choice(question, list(map(_bare, row["options"])), _place(_LETTERS, row["answer"]))


def next_qa(row: Record) -> Choice:
    """Five options in fields of their own; the answer is a place."""
    options = [str(row[f"a{place}"]) for place in range(5)]
    return Choice(_listed(row["question"], options), options, int(row["answer"]))


def ego_schema(row: Record) -> Choice:
    """Options are lettered in the record, and follow the question without a break; the answer is a place."""
    question = row["question"] + " ".join(row["option"])
    return Choice(question, list(map(_bare, row["option"])), int(row["answer"]))


def mv_bench(row: Record) -> Choice:
    """Options get letters, as candidates too; the answer is an option."""
    options = [str(option) for option in row["candidates"]]
    return Choice(_listed(row["question"], options), _lettered(options), _place(options, row["answer"]))


def activity_net_qa(row: Record) -> Choice:
    """Yes or no."""
    return Choice(f"{row['question']}? (A) yes; (B) no.", _YES_NO, _place(_YES_NO, row["answer"]))


def _bare(option: str) -> str:
    """Return an option without its letter: `B. A dog.` is `A dog`."""
    return option[option.find(". ") :].strip(". ")


def _lettered(options: Sequence[str]) -> list[str]:
    return [f"({letter}) {option}" for letter, option in zip(_LETTERS, options, strict=False)]


def _listed(question: str, options: Sequence[str]) -> str:
    return "\n".join([question, "Options:", *_lettered(options)])


def _place(options: Sequence[str], answer: object) -> int:
    return list(options).index(str(answer)) if str(answer) in list(options) else -1
