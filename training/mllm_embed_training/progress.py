"""What one sees of a run: a progress bar, `metrics.jsonl`, TensorBoard's scalars, and the curves as a picture."""

from __future__ import annotations

import io
import json
import resource
import sys
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mllm_embed_training import ranks
from mllm_embed_training.run_files import BOARD, CURVES, METRICS, forget, read_lines, write_file
from mllm_embed_training.run_report import write_report


class Progress:
    """Shows and records the steps of a run, on rank 0 alone.

    Args:
        run_dir: receives `metrics.jsonl` (one line per step, appended on resume), `curves.png`, `report.html`, and in
            `tensorboard` the same numbers as scalars.
        first: first step of this process.
        steps: steps in all.
        batch_size: examples per step, for the rate.
    """

    def __init__(self, run_dir: Path, first: int, steps: int, batch_size: int) -> None:
        self._run_dir = run_dir
        self._first = first
        self._steps = steps
        self._batch_size = batch_size
        self._mean: dict[str, float] = {}
        self._open = ExitStack()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )

    def __enter__(self) -> Progress:
        if ranks.rank() != 0:
            return self
        from mllm_embed_training.board import Board

        self._run_dir.mkdir(parents=True, exist_ok=True)
        forget(self._run_dir / METRICS, self._first)
        self._file = self._open.enter_context((self._run_dir / METRICS).open("a", encoding="utf-8"))
        self._board = self._open.enter_context(closing(Board(self._run_dir / BOARD, self._first)))
        self._last = time.monotonic()
        self._open.enter_context(self._bar)
        self._task = self._bar.add_task("training", total=self._steps, completed=self._first, note="")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def update(self, step: int, task: str | None, metrics: dict[str, float]) -> None:
        """Record one step, and the task that its batch came from if there is one such."""
        if ranks.rank() != 0:
            return
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        measured = {"seconds": max(round(seconds, 4), 1e-4), "peak_memory_mib": round(peak_memory() / 2**20), **metrics}
        self._file.write(json.dumps({"step": step, "task": task, **measured}) + "\n")
        self._file.flush()
        for name, value in measured.items():
            self._mean[name] = 0.95 * self._mean.get(name, value) + 0.05 * value
        self._board.add(step, {f"train/{name}": value for name, value in measured.items()})
        self._bar.update(self._task, completed=step + 1, note=note(self._mean, self._batch_size))

    def draw(self) -> None:
        """Draw the curves of the whole run so far, and write its report."""
        draw_curves(self._run_dir / METRICS, self._run_dir / CURVES)
        write_report(self._run_dir)


def note(mean: dict[str, float], batch_size: int) -> str:
    """Say in one line how a run goes.

    Args:
        mean: recent means of the metrics of `metrics.jsonl`.
        batch_size: examples per step.
    """
    accuracy = f"  acc {mean['accuracy']:.3f}" if "accuracy" in mean else ""
    return (
        f"loss {mean['loss']:.3f}{accuracy}  {batch_size / mean['seconds']:.1f} pairs/s  "
        f"{mean['tokens'] / mean['seconds']:,.0f} tokens/s  {mean['peak_memory_mib'] / 1024:.1f} GiB"
    )


def peak_memory() -> int:
    """Return the most memory used so far, in bytes: the GPU's where there is one in use, else the process's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw loss and accuracy over steps, for every task where batches are homogeneous; learning rate, gradient norm."""
    from matplotlib.figure import Figure

    rows = read_lines(metrics)
    figure = Figure(figsize=(13, 8), layout="constrained")
    for axis, name in zip(figure.subplots(2, 2).ravel(), ("loss", "accuracy", "lr", "grad_norm"), strict=True):
        for colour, (task, curve) in enumerate(_curves(rows, name).items()):
            style = ("-", "--", ":")[colour // 10 % 3]  # ten colours, then the same ones dashed
            axis.plot(*zip(*curve, strict=True), style, linewidth=1.2, label=task)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    write_file(picture, drawn.getvalue())


def _curves(rows: list[dict[str, Any]], name: str) -> dict[str, list[tuple[int, float]]]:
    """Smooth one metric, apart for every task if it depends on the task; -> points (step, value) by task."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        if name in row:
            task = str(row.get("task")) if name in ("loss", "accuracy") else "all"
            curves[task].append((row["step"], row[name]))
    decay = 0.0 if name == "lr" else 0.97 if len(curves) == 1 else 0.8
    return {
        task: list(zip([step for step, _ in points], _smooth([value for _, value in points], decay), strict=True))
        for task, points in sorted(curves.items())
    }


def _smooth(values: list[float], decay: float) -> list[float]:
    smooth: list[float] = []
    for value in values:
        smooth.append(value if not smooth else decay * smooth[-1] + (1 - decay) * value)
    return smooth
