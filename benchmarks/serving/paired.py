"""Our server beside vLLM's own, on the same model with the same engine settings, under the same load, in one run.

    python benchmarks/serving/paired.py
    python benchmarks/serving/paired.py --model runs/my-model --rounds 5 --seconds 20

Both servers run all the time; each load goes to the one and the other in turn, round after round, and the medians of
the rounds are compared. Ours is measured with its cache, which new content never hits; the last row repeats content.
Needs a machine whose cores nothing else wants, and memory for two engines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
from rich.console import Console
from rich.table import Table

import mllm_embed.backends
from mllm_embed.backends.base import MAX_IMAGES
from mllm_embed.model_dir import BUILT_IN, ModelDir, open_model_dir
from mllm_embed_serving.bench.load import Measurement, closed_loop
from mllm_embed_serving.bench.workloads import Workload

_READY_S = 600
_ENGINE_SITE = Path(mllm_embed.backends.__file__).parent / "_engine_site"
"""What stock vLLM needs beside a CPU build of torch; our server brings it to its engine by itself."""


@dataclass(frozen=True)
class Row:
    """One load: its name, what is sent, and how many clients send it."""

    name: str
    workload: Workload
    clients: int


ROWS = (
    Row("text, 1 per request", Workload(kind="text"), 32),
    Row("text, 64 per request", Workload(kind="text", items=64), 4),
    Row("image + text", Workload(kind="mixture"), 32),
    Row("text, 90 % repeated", Workload(kind="text", repeated=0.9), 32),
    Row("image + text, 90 % repeated", Workload(kind="mixture", repeated=0.9), 32),
)


def main() -> None:
    """Start both servers, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUILT_IN, help="a complete model directory, or the built-in model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="per load, server and round")
    parser.add_argument("--kv-cache-gib", type=float, default=0.5, help="memory for attention states, each")
    parser.add_argument("--logs", type=Path, default=Path("runs/bench"), help="folder for the servers' output")
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    model_dir = open_model_dir(options.model)
    if model_dir.adapter is not None:
        parser.error("--model must be a complete model: export it first, since vLLM would be given no adapter")
    with (
        _running(_ours(options.model), options.logs / "ours.log") as ours,
        _running(_stock(model_dir, options.kv_cache_gib), options.logs / "vllm.log", path=_ENGINE_SITE) as stock,
    ):
        asyncio.run(_compare({"ours": ours, "vLLM": stock}, model_dir.recipe.name, options))


def _ours(model: str) -> list[str]:
    return [sys.executable, "-m", "mllm_embed.cli", "serve", model, "--backend", "vllm", "--log-level", "warning"]


def _stock(model_dir: ModelDir, kv_cache_gib: float) -> list[str]:
    """VLLM's server with the settings that our engine runs with, see mllm_embed/backends/vllm.py."""
    recipe = model_dir.recipe
    size = {"shortest_edge": recipe.min_pixels, "longest_edge": recipe.max_pixels}
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model_dir.weights), "--served-model-name", recipe.name),
        *("--runner", "pooling", "--pooler-config", json.dumps({"seq_pooling_type": "LAST"})),
        *("--dtype", "float32", "--max-model-len", str(recipe.max_tokens), "--enforce-eager"),
        *("--limit-mm-per-prompt", json.dumps({"image": MAX_IMAGES, "video": 0})),
        *("--mm-processor-kwargs", json.dumps({"size": size})),
        *("--kv-cache-memory-bytes", str(int(kv_cache_gib * 2**30)), "--distributed-executor-backend", "uni"),
        *("--disable-log-stats", "--disable-uvicorn-access-log"),
    ]


@contextlib.contextmanager
def _running(command: list[str], log: Path, path: Path | None = None) -> Iterator[str]:
    """Start a server on a free port, and yield its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(path or ""), os.environ.get("PYTHONPATH")))),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603  # our own command
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=stream, stderr=stream, env=environment
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"a server does not start; see {log}")


async def _compare(urls: dict[str, str], model: str, options: argparse.Namespace) -> None:
    table = Table(
        *("load", "clients", "requests/s ours", "vLLM", "ratio", "p99 ms ours", "vLLM"),
        title=f"{model}, {options.rounds} rounds of {options.seconds:g} s, {os.cpu_count()} cores",
    )
    for row in ROWS:
        found: dict[str, list[Measurement]] = {name: [] for name in urls}
        for round_ in range(options.rounds):
            for name, url in urls.items():
                found[name].append(await _measure(url, model, row, round_, options.seconds))
        rates = {name: median(len(one.latencies) / one.seconds for one in each) for name, each in found.items()}
        slowest = {name: median(one.percentile(99) for one in each) for name, each in found.items()}
        bad = sum(one.statuses.total() - one.statuses[200] for each in found.values() for one in each)
        table.add_row(
            *(row.name, str(row.clients), f"{rates['ours']:.0f}", f"{rates['vLLM']:.0f}"),
            f"{rates['ours'] / rates['vLLM']:.2f}",
            *(f"{slowest['ours']:.0f}", f"{slowest['vLLM']:.0f}" + (f" ({bad} failed)" if bad else "")),
        )
        print(f"{row.name}: {rates}", flush=True)
    Console().print(table)


async def _measure(url: str, model: str, row: Row, round_: int, seconds: float) -> Measurement:
    """Measure one server once; a round has content of its own, the same for both servers."""
    workload = Workload(
        kind=row.workload.kind, items=row.workload.items, repeated=row.workload.repeated, seed=1000 + round_
    )
    limits = httpx.Limits(max_connections=row.clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300, trust_env=False) as client:
        bodies = workload.requests(model)
        await closed_loop(client, bodies, clients=row.clients, seconds=min(1.0, seconds))  # warms up
        return await closed_loop(client, bodies, clients=row.clients, seconds=seconds)


if __name__ == "__main__":
    main()
