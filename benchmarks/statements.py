"""How much of what a model gets right of NLVR is told by the picture, and how much by the sentence alone.

    python benchmarks/statements.py docs/reports/*.ranks.parquet
    python benchmarks/statements.py docs/reports/after.ranks.parquet --worst 5

prints a row for each file that `mllm-embed eval` writes beside its report. A sentence is said of many scenes. Shuffled
among the scenes of their sentence, a model's answers would be right as often as `by the sentence` says (the mean of all
shuffles); `by the picture` is what it has beyond that, with the standard deviation over shuffles. `--worst` names the
sentences that lose most against calling every statement true. Reads the data package (MLLM_EMBED_DATA).
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from mllm_embed.evaluation.pools import hash_order
from mllm_embed_training.sources import Row, data_folder

TASK = "nlvr"


def statements(folder: Path) -> list[Row]:
    """Return the held-out statements in the order in which the suite asks them."""
    rows = pq.read_table(folder / "nlvr.parquet", columns=["image_id", "split", "sentence", "label"]).to_pylist()
    return hash_order((row for row in rows if row["split"].startswith("test")), lambda row: str(row["image_id"]))


def right(report: Path) -> list[bool]:
    """Return whether each statement of the suite was judged rightly."""
    rows = pq.read_table(report, filters=[("task", "==", TASK)], columns=["slices", "ranks"]).to_pylist()
    return [min(row["ranks"]) == 1 for row in rows if "test" in row["slices"]]


def shuffled(answers: Iterable[tuple[bool, bool]]) -> tuple[float, float]:
    """Return how many of one sentence's answers are right if they are shuffled: the mean, and the variance.

    Args:
        answers: of each scene, what was said, and what is so. The number of scenes that are said to be true and are is
            hypergeometric; the right ones are twice that, and a constant.
    """
    said, so = zip(*answers, strict=True)
    scenes, yes, true = len(said), sum(said), sum(so)
    expected = (yes * true + (scenes - yes) * (scenes - true)) / scenes
    spread = yes * true * (scenes - true) * (scenes - yes) / (scenes**2 * max(scenes - 1, 1))
    return expected, 4 * spread


def worst(answers: Mapping[str, Sequence[tuple[bool, bool]]], count: int) -> None:
    """Print the sentences that lose most against calling every statement true."""
    print("\n| scenes | true | said to be true | right | sentence |\n| ---: | ---: | ---: | ---: | --- |")
    rows = []
    for sentence, group in answers.items():
        said, so = (sum(part) for part in zip(*group, strict=True))
        rows.append((len(group), so, said, sum(one == other for one, other in group), sentence))
    for row in sorted(rows, key=lambda row: row[3] - row[1])[:count]:
        print(f"| {' | '.join(map(str, row))} |")


def main() -> None:
    """Print a row per report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="NAME.ranks.parquet files of `mllm-embed eval`")
    parser.add_argument("--worst", type=int, default=0, help="sentences of the last report to name")
    options = parser.parse_args()
    asked = statements(data_folder(None))
    print(f"always true: {sum(bool(row['label']) for row in asked)} of {len(asked)}\n")
    print("| report | right | said to be true | by the sentence | by the picture |")
    print("| --- | ---: | ---: | ---: | ---: |")
    answers: dict[str, list[tuple[bool, bool]]] = {}
    for report in options.reports:
        judged = right(report)
        answers = defaultdict(list)
        if len(judged) != len(asked):
            print(f"| {report.name} | {len(judged)} statements, not these {len(asked)} | | | |")
            continue
        for row, ok in zip(asked, judged, strict=True):
            so = bool(row["label"])
            answers[str(row["sentence"])].append((so if ok else not so, so))
        expected, spread = (sum(part) for part in zip(*map(shuffled, answers.values()), strict=True))
        said = sum(said for group in answers.values() for said, _ in group)
        picture = f"{sum(judged) - expected:+.0f} ± {math.sqrt(spread):.0f}"
        print(f"| {report.name} | {sum(judged)} | {said} | {expected:.0f} | {picture} |")
    if options.worst:
        worst(answers, options.worst)


if __name__ == "__main__":
    main()
