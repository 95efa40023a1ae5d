"""What one sees of a run: a progress bar, `metrics.jsonl`, and the curves as a picture."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mllm_embed_training import ranks


class Progress:
    """Shows and records the steps of a run, on rank 0 alone.

    Args:
        run_dir: receives `metrics.jsonl` (one line per step, appended on resume) and `curves.png`.
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
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )

    def __enter__(self) -> Progress:
        if ranks.rank() != 0:
            return self
        self._run_dir.mkdir(parents=True, exist_ok=True)
        trim_metrics(self._run_dir / "metrics.jsonl", self._first)
        self._file = (self._run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        self._started = self._last = time.monotonic()
        self._bar.start()
        self._task = self._bar.add_task("training", total=self._steps, completed=self._first, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if ranks.rank() != 0:
            return
        self._bar.stop()
        self._file.close()

    def update(self, step: int, task: str | None, metrics: dict[str, float]) -> None:
        """Record one step, and the task that its batch came from if there is one such."""
        if ranks.rank() != 0:
            return
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self._file.write(json.dumps({"step": step, "task": task, "seconds": round(seconds, 4), **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._mean[name] = 0.95 * self._mean.get(name, value) + 0.05 * value
        rate = (step + 1 - self._first) * self._batch_size / (now - self._started)
        note = f"loss {self._mean['loss']:.3f}  acc {self._mean.get('accuracy', 0):.3f}  {rate:.1f} examples/s"
        self._bar.update(self._task, completed=step + 1, note=note)

    def draw(self) -> None:
        """Draw the curves of the whole run so far."""
        draw_curves(self._run_dir / "metrics.jsonl", self._run_dir / "curves.png")


def trim_metrics(path: Path, first: int) -> None:
    """Drop the lines of steps that are about to be repeated after a resume."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] < first]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw loss and accuracy over steps, for every task where batches are homogeneous; learning rate, gradient norm."""
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
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
    figure.savefig(picture, dpi=110)


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
