"""How much of what a model gets right of NLVR is told by the picture, and how much by the sentence alone.

    python benchmarks/statements.py docs/reports/*.ranks.parquet

prints a row for each file that `mllm-embed eval` writes beside its report. A sentence is said of many scenes. Shuffled
among the scenes of their sentence, a model's answers would be right as often as `by the sentence` says (the mean of all
shuffles); `by the picture` is what it has beyond that, with the standard deviation over shuffles. Reads the data
package (MLLM_EMBED_DATA).
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable
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


def main() -> None:
    """Print a row per report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="NAME.ranks.parquet files of `mllm-embed eval`")
    asked = statements(data_folder(None))
    print(f"always true: {sum(bool(row['label']) for row in asked)} of {len(asked)}\n")
    print("| report | right | said to be true | by the sentence | by the picture |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for report in parser.parse_args().reports:
        judged = right(report)
        if len(judged) != len(asked):
            print(f"| {report.name} | {len(judged)} statements, not these {len(asked)} | | | |")
            continue
        answers: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        for row, ok in zip(asked, judged, strict=True):
            so = bool(row["label"])
            answers[str(row["sentence"])].append((so if ok else not so, so))
        told = [shuffled(group) for group in answers.values()]
        expected, spread = (sum(part) for part in zip(*told, strict=True))
        said = sum(said for group in answers.values() for said, _ in group)
        picture = f"{sum(judged) - expected:+.0f} ± {math.sqrt(spread):.0f}"
        print(f"| {report.name} | {sum(judged)} | {said} | {expected:.0f} | {picture} |")


if __name__ == "__main__":
    main()
