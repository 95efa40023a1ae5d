"""The benchmarks for GPUs run on a CPU too, at a tiny size, so they do not rot; and what prints figures of the log."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
TINY = ("--device", "cpu", "--size", "tiny", "--pixels", "96", "--rounds", "1")


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (48, 48), colour).save(stream, "PNG")
    return stream.getvalue()


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


def test_a_texts_own_share_of_its_teachers_distribution(tmp_path: Path) -> None:
    """Of two vectors whose cosine is 0.9, each has 1 / (1 + exp(-0.1 / temperature)) itself."""
    file = tmp_path / "teacher.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "vector": [[2.0, 0.0], [0.9, 0.19**0.5]]}), file)
    command = [sys.executable, str(FOLDER / "teacher_share.py"), str(file), "--batch", "2"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.splitlines()
    assert printed[2:] == ["| 0.02 | 0.9933 | 0.90 |", "| 0.05 | 0.8808 | 0.90 |", "| 0.1 | 0.7311 | 0.90 |"]


def test_the_nearest_train_photo_is_of_a_class(tmp_path: Path) -> None:
    """Red things and blue ones: whatever the model, a picture is nearest to itself."""
    rows = [
        {
            "image_id": f"{split}-{label}",
            "set": of,
            "label": label,
            "split": split,
            "license": "CC0",
            "image": png(colour),
        }
        for split in ("train", "test_inst")
        for of, label, colour in (("grocery", "apple", "red"), ("clothing", "hat", "blue"))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "photos.parquet")
    command = [sys.executable, str(FOLDER / "picture_neighbours.py"), "mllm-embed-mini"]
    env = os.environ | {"MLLM_EMBED_DATA": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[2:] == ["| mllm-embed-mini | 1.000 | 1.000 |"]


def test_the_rates_of_a_processor_by_type() -> None:
    command = [sys.executable, str(FOLDER / "bf16.py")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout.splitlines()
    assert [line.split()[0] for line in printed] == ["float32", "bfloat16", "auto"]
    assert all(float(line.split()[1]) > 0 for line in printed[:2])


def test_the_summary_of_a_run_has_accuracy_and_loss_by_task(tmp_path: Path) -> None:
    steps = [
        {
            "step": step,
            "task": "one" if step % 2 else None,
            "seconds": 30,
            "peak_memory_mib": 512 + step,
            "accuracy": step / 8,
            "loss": 8 - step,
        }
        for step in range(8)
    ]
    del steps[0]["accuracy"]  # a step that distilled has none
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))
    command = [sys.executable, str(FOLDER / "training_summary.py"), str(tmp_path), "--window", "4"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.splitlines()
    assert printed[1].endswith("8 steps in 4 minutes, at most 0.5 GiB")
    assert printed[-2:] == ["| all, mixed | 4 | 0.25 | 0.62 | 7.00 | 3.00 |", "| one | 4 | 0.25 | 0.75 | 6.00 | 2.00 |"]


def test_what_a_picture_tells_of_a_statement(tmp_path: Path) -> None:
    """Of four scenes two are as stated; three are said to be: shuffled, two are right, and here three are."""
    scenes = [(sentence, number, sentence == "b" or number < 2) for sentence in "ab" for number in range(4)]
    rows = [
        {"image_id": f"{sentence}{number}", "split": "test", "sentence": sentence, "label": label}
        for sentence, number, label in scenes
    ]
    asked = ["a2", "b2", "a0", "b3", "b1", "b0", "a3", "a1"]  # by the SHA-256 of their ids, as the suite asks
    ranks = [{"task": "nlvr", "slices": ["test"], "ranks": [2 if one == "a2" else 1]} for one in asked]
    ranks += [{"task": "nlvr", "slices": ["train"], "ranks": [2]}, {"task": "other", "slices": ["test"], "ranks": [1]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "nlvr.parquet")
    pq.write_table(pa.Table.from_pylist(ranks), tmp_path / "mine.ranks.parquet")
    command = [sys.executable, str(FOLDER / "statements.py"), str(tmp_path / "mine.ranks.parquet"), "--worst", "1"]
    env = os.environ | {"MLLM_EMBED_DATA": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "always true: 6 of 8",
        "",
        "| report | right | said to be true | by the sentence | by the picture |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| mine.ranks.parquet | 7 | 7 | 6 | +1 ± 1 |",
        "",
        "| scenes | true | said to be true | right | sentence |",
        "| ---: | ---: | ---: | ---: | --- |",
        "| 4 | 4 | 4 | 4 | b |",
    ]
