"""`report.html` of a run directory: one page that needs nothing else, made of the run's own files."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from mllm_embed_training import run_files
from mllm_embed_training.run_files import read_lines, write_file
from mllm_embed_training.watch import stands_still

RECENT = 50
"""Steps over which the page's rates are taken."""


def write_report(run_dir: Path) -> None:
    """Write the page of a run as its directory stands: before, during and after it."""
    write_file(run_dir / run_files.REPORT, report_page(run_dir))


def report_page(run_dir: Path) -> str:
    """Return the page: state, curves, held-out scores, corrupt rows, examples, settings, versions and checksums."""
    import jinja2

    source = files("mllm_embed_training").joinpath("run_report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    config, record = _read(run_dir / run_files.CONFIG), _read(run_dir / run_files.RECORD)
    steps = read_lines(run_dir / run_files.METRICS)
    return environment.from_string(source).render(
        name=run_dir.resolve().name,
        stage=config.get("stage", ""),
        numbers=_numbers(steps, config),
        still=stands_still([step["loss"] for step in steps]),
        curves=_picture(run_dir / run_files.CURVES),
        heldout=read_lines(run_dir / run_files.HELDOUT),
        heldout_curves=_picture(run_dir / run_files.HELDOUT_CURVES),
        corrupt=read_lines(run_dir / run_files.CORRUPT),
        examples=_read(run_dir / run_files.EXAMPLES),
        settings=_flat(config),
        record=_flat(record),
    )


def _numbers(steps: list[dict[str, Any]], config: Mapping[str, Any]) -> dict[str, str]:
    """The numbers at the top of the page, by what they are."""
    if not steps:
        return {"steps done": "0"}
    recent, last = steps[-RECENT:], steps[-1]
    seconds = median(step["seconds"] for step in recent)
    return {
        "steps done": f"{last['step'] + 1:,} of {config['optim']['steps']:,}",
        "loss": f"{sum(step['loss'] for step in recent) / len(recent):.4f}",
        "pairs a second": f"{config['data']['batch_size'] / seconds:,.1f}",
        "tokens a second": f"{median(step['tokens'] for step in recent) / seconds:,.0f}",
        "peak memory": f"{max(step['peak_memory_mib'] for step in steps) / 1024:,.2f} GiB",
        "hours of steps": f"{sum(step['seconds'] for step in steps) / 3600:,.2f}",
    }


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Write nested settings as `section.key`, those that are not set left out."""
    if isinstance(value, Mapping):
        parts = [_flat(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items()]
        return {key: text for part in parts for key, text in part.items()}
    return {} if value in (None, [], "") else {prefix: value if isinstance(value, str) else json.dumps(value)}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _picture(path: Path) -> str | None:
    if not path.exists():
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
