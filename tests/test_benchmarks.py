"""The benchmarks for GPUs run on a CPU too, at a tiny size: so they do not rot where nobody has a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
TINY = ("--device", "cpu", "--size", "tiny", "--pixels", "96", "--rounds", "1")


@pytest.mark.parametrize(
    ("script", "options", "says"),
    [
        ("gpu_embedding.py", ("--batch", "2", "--attention", "sdpa"), "items/s"),
        ("gpu_training.py", ("--batch", "8", "--chunk", "4"), "utilisation"),
    ],
)
def test_a_gpu_benchmark_runs_on_a_cpu(script: str, options: tuple[str, ...], says: str, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / script), *TINY, *options, "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert says in done.stdout
    assert "tiny" in done.stdout
