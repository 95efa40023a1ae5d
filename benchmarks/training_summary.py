"""What a training run did, read off its metrics: minutes, peak memory, accuracy and loss by task, early and late.

    python benchmarks/training_summary.py runs/mini-tones-h runs/mini-clips-i --window 60

prints a table per run directory. The log's numbers of that kind are what it prints of the runs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from mllm_embed_training.run_files import METRICS, read_lines

COLUMNS = ("accuracy", "loss")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--window", type=int, default=100, help="steps that are early, and that are late")
    options = parser.parse_args()
    for run in options.runs:
        print(summary(run, options.window))


def summary(run: Path, window: int) -> str:
    """Return the table of a run."""
    steps = list(read_lines(run / METRICS))
    if not steps:
        raise SystemExit(f"{run} has no {METRICS}")
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for step in steps:
        found[step["task"] or "all, mixed"].append(step)
    last = steps[-1]["step"] + 1
    spans = (range(window), range(last - window, last))
    rows = [
        " | ".join([f"| {name} | {len(seen)}", *(_mean(seen, key, span) for key in COLUMNS for span in spans)]) + " |"
        for name, seen in sorted(found.items())
    ]
    minutes, memory = sum(step["seconds"] for step in steps) / 60, max(step["peak_memory_mib"] for step in steps)
    head = f"\n{run}: {len(steps)} steps in {minutes:.0f} minutes, at most {memory / 1024:.1f} GiB\n"
    names = [f"{key} in {span.start}-{span.stop}" for key in COLUMNS for span in spans]
    columns = f"| task | steps | {' | '.join(names)} |\n| --- |{' ---: |' * (1 + len(names))}"
    return "\n".join([head, columns, *rows])


def _mean(seen: list[dict[str, Any]], key: str, span: range) -> str:
    chosen = [step[key] for step in seen if step["step"] in span and key in step]  # what is distilled has no accuracy
    return f"{mean(chosen):.2f}" if chosen else "-"


if __name__ == "__main__":
    main()
