"""Our server beside vLLM's own, on the same model with the same engine settings, under the same load, in one run.

    python benchmarks/serving/paired.py
    python benchmarks/serving/paired.py --two-layers
    python benchmarks/serving/paired.py --model runs/my-model --rounds 5 --seconds 20

Both servers run all the time; each load goes to the one and the other in turn, round after round, and the medians of
the rounds are compared. Both read the same prompts, which is proved first: their vectors are equal. Ours is measured
with its cache, which new content never hits; the last rows repeat content. With `--two-layers` the model is so
small that it is the servers that are measured. Needs a machine whose cores nothing else wants, and memory for two
engines.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from servers import running, running_command

import mllm_embed.backends
from mllm_embed.backends.base import MAX_IMAGES
from mllm_embed.model_dir import BUILT_IN, ModelDir, open_model_dir
from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed.vectors import from_base64
from mllm_embed_serving.bench.load import Measurement, closed_loop, open_session
from mllm_embed_serving.bench.workloads import WORDS, Workload
from mllm_embed_training.chat_template import chat_template
from mllm_embed_training.scratch import ScratchModel, TextShape, VisionShape, create

_WARM_UP_S = 1.0
_SAME = 0.9999
"""Cosine from which two vectors are the same."""
_ENGINE_SITE = Path(mllm_embed.backends.__file__).parent / "_engine_site"


@dataclass(frozen=True)
class Row:
    """One load: its name, what is sent, and how many clients send it."""

    name: str
    workload: Workload
    clients: int

    def bodies(self, model: str, seed: int, seconds: float) -> list[dict[str, Any]]:
        """Make more requests than can be sent: drawing pictures meanwhile would take the servers' cores."""
        rate = 800 if self.workload.kind == "mixture" and not self.workload.repeated else 6000 / self.workload.items
        endless = replace(self.workload, seed=seed).requests(model)
        return list(itertools.islice(endless, int(rate * seconds) + self.clients))


ROWS = (
    Row("text, 1 per request", Workload(kind="text"), 32),
    Row("text, 64 per request", Workload(kind="text", items=64), 4),
    Row("image + text", Workload(kind="mixture"), 32),
    Row("text, 90 % repeated", Workload(kind="text", repeated=0.9), 32),
    Row("text, 99 % repeated", Workload(kind="text", repeated=0.99), 32),
    Row("image + text, 90 % repeated", Workload(kind="mixture", repeated=0.9), 32),
    Row("image + text, 99 % repeated", Workload(kind="mixture", repeated=0.99), 32),
)


def main() -> None:
    """Start both servers, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUILT_IN, help="a complete model directory, or the built-in model")
    parser.add_argument("--two-layers", action="store_true", help="measure on a random model of two layers instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="per load, server and round")
    parser.add_argument("--kv-cache-gib", type=float, default=0.5, help="memory for attention states, each")
    parser.add_argument("--logs", type=Path, default=Path("runs/bench"), help="folder for the servers' output")
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    if options.two_layers:
        options.model = str(_two_layers(options.logs / "two-layers"))
    model_dir = open_model_dir(options.model)
    if model_dir.adapter is not None:
        parser.error("--model must be a complete model: export it first, since vLLM would be given no adapter")
    with (
        running(options.model, "--backend", "vllm", log=options.logs / "ours.log") as ours,
        running_command(_stock(model_dir, options.kv_cache_gib), options.logs / "vllm.log", _environment()) as stock,
    ):
        servers = [Contender("ours", ours.url, model_dir), Contender("vLLM", stock.url, model_dir)]
        asyncio.run(_compare(servers, options))


def _two_layers(path: Path) -> Path:
    """Write a model directory like the built-in one, of two random layers."""
    built_in = open_model_dir(BUILT_IN)
    corpus = [get_task(DEFAULT).query, *(f" {word}" for word in WORDS)]
    text = TextShape(hidden_size=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate_size=128)
    vision = VisionShape(hidden_size=64, layers=3, heads=2, intermediate_size=128)
    create(ScratchModel(vocab_size=512, text=text, vision=vision), corpus, path)
    recipe = replace(built_in.recipe, name="two-layers", dimensions=text.hidden_size, matryoshka_dimensions=())
    (path / "mllm_embed.json").write_text(recipe.to_json(), encoding="utf-8")
    (path / "chat_template.jinja").write_text(chat_template(open_model_dir(path)), encoding="utf-8")
    return path


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


def _environment() -> dict[str, str]:
    """What stock vLLM needs beside a CPU build of torch; our server brings it to its engine by itself."""
    path = os.pathsep.join(filter(None, (str(_ENGINE_SITE), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


async def _compare(servers: Sequence[Contender], options: argparse.Namespace) -> None:
    name = servers[0].model_dir.recipe.name
    for row in ROWS:
        await _check_same_vectors(servers, row)
    table = Table(
        *("load", "clients", "requests/s ours", "vLLM", "ratio", "p99 ms ours", "vLLM"),
        title=f"{name}, {options.rounds} rounds of {options.seconds:g} s, {os.cpu_count()} cores",
    )
    for row in ROWS:
        found: dict[str, list[Measurement]] = {server.name: [] for server in servers}
        for round_ in range(options.rounds):
            # A round has content of its own, the same for both servers.
            content = row.bodies(name, 1000 + round_, options.seconds + _WARM_UP_S)
            for server in servers:
                found[server.name].append(await _measure(server, content, row.clients, options.seconds))
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


@dataclass(frozen=True)
class Contender:
    """One of the two."""

    name: str
    url: str
    model_dir: ModelDir

    def requests(self, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what it is sent, so that both read the same prompts: vLLM fills the template for messages only."""
        return [self._with_prompts(body) for body in bodies] if self.name == "vLLM" else list(bodies)

    def _with_prompts(self, body: dict[str, Any]) -> dict[str, Any]:
        if "input" not in body:
            return body
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        frame = self.model_dir.template.text.replace("{instruction}", get_task(DEFAULT).query)
        prompts = [frame.replace("{content}", text) for text in texts]
        return {**body, "input": prompts if isinstance(body["input"], list) else prompts[0]}


async def _check_same_vectors(servers: Sequence[Contender], row: Row) -> None:
    """Send one request to both servers; other vectors would mean that they are asked for different work."""
    found = []
    body = row.bodies(servers[0].model_dir.recipe.name, 0, 0)[0]
    for server in servers:
        async with httpx.AsyncClient(base_url=server.url, timeout=300, trust_env=False) as client:
            answer = await client.post("/v1/embeddings", json=server.requests([body])[0])
        found.append(np.stack([from_base64(item["embedding"]) for item in answer.raise_for_status().json()["data"]]))
    worst = float((found[0] * found[1]).sum(axis=1).min())
    if worst < _SAME:
        raise SystemExit(f"{row.name}: the servers give different vectors (cosine {worst:.4f})")


async def _measure(server: Contender, content: Sequence[dict[str, Any]], clients: int, seconds: float) -> Measurement:
    async with open_session(server.url) as session:
        bodies = iter(server.requests(content))
        await closed_loop(session, bodies, clients=clients, seconds=_WARM_UP_S)
        return await closed_loop(session, bodies, clients=clients, seconds=seconds)


if __name__ == "__main__":
    main()
