"""One server process beside two, under the same load.

    python benchmarks/serving/scale.py

Texts, 64 per request, from clients that wait for their answers, spread evenly over the servers. What two gain depends
on the cores: an engine on a CPU uses several for one batch, so two processes on two cores share what one has already.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from servers import Server, running

from mllm_embed.model_dir import BUILT_IN
from mllm_embed_serving.bench.load import closed_loop, open_session, served_model
from mllm_embed_serving.bench.workloads import Workload


def main() -> None:
    """Start two servers, ask the first alone and both, in turn; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUILT_IN)
    parser.add_argument("--clients", type=int, default=8, help="in all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="per case and round")
    parser.add_argument("--logs", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        logs = [options.logs / f"scale-{number}.log" for number in (1, 2)]
        servers = [stack.enter_context(running(options.model, "--backend", "vllm", log=log)) for log in logs]
        asyncio.run(_compare(servers, options))


async def _compare(servers: Sequence[Server], options: argparse.Namespace) -> None:
    found: dict[int, list[float]] = {1: [], 2: []}
    for round_ in range(options.rounds):
        for count, rates in found.items():
            rates.append(await _rate(servers[:count], options, seed=10 * round_ + count))
    table = Table("processes", "texts/s", "gain", title=f"{os.cpu_count()} cores, {options.rounds} rounds")
    for count, rates in found.items():
        table.add_row(str(count), f"{median(rates):.0f}", f"{median(rates) / median(found[1]):.2f}")
    Console().print(table)


async def _rate(servers: Sequence[Server], options: argparse.Namespace, seed: int) -> float:
    """Return the texts per second of all servers together."""

    async def load(server: Server, seed: int) -> float:
        async with open_session(server.url) as session:
            texts = Workload(kind="text", items=64, seed=seed).requests(await served_model(session))
            clients = options.clients // len(servers)
            await closed_loop(session, texts, clients=clients, seconds=1)  # warms up
            one = await closed_loop(session, texts, clients=clients, seconds=options.seconds)
            return one.items / one.seconds

    return sum(await asyncio.gather(*(load(server, 100 * seed + n) for n, server in enumerate(servers))))


if __name__ == "__main__":
    main()
