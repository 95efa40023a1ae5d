"""More than the server can do, for long, and its engine killed under load.

    python benchmarks/serving/overload.py
    python benchmarks/serving/overload.py --seconds 60 --kills 1

First the server's capacity is measured. Then requests arrive at a multiple of it, at random times that do not wait for
answers; every answer must be the right vector or a 429 that says when to come back. Then the engine's process is killed
(SIGKILL) while requests arrive at half the capacity: every answer must be the right vector or an error, and the server
must serve again by itself. Each content's right vector was asked for beforehand, at rest.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray
from servers import Server, running

from mllm_embed.model_dir import BUILT_IN
from mllm_embed.vectors import from_base64
from mllm_embed_serving.bench.load import closed_loop, open_session, served_model
from mllm_embed_serving.bench.workloads import Workload

CONTENTS = 300
"""Requests whose right answers are known; the server keeps no results, so that each is work."""
QUEUE = 64
"""Requests that may be under way at once."""
_SAME = 0.9999
"""Cosine from which a vector is the right one: batches differ, and with them the last bits."""


@dataclass
class Load:
    """What became of the requests of one load.

    Attributes:
        statuses: answers by status; 0 where there was none.
        latencies: seconds of the answers with vectors.
        wrong: answers with vectors that are not the right ones.
        unexplained: refusals that do not say when to come back.
        moments: when each answer with vectors came.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    unexplained: int = 0
    moments: list[float] = field(default_factory=list)


class Caller:
    """Sends requests whose right answers it knows."""

    def __init__(self, session: aiohttp.ClientSession, model: str) -> None:
        self._session = session
        stream = Workload(kind="text", items=16, words=24).requests(model)
        self._bodies = list(itertools.islice(stream, CONTENTS))
        self._right: list[NDArray[np.float32]] = []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """All requests."""
        return self._bodies

    async def learn(self) -> None:
        """Ask for the right answers, one after the other."""
        for body in self._bodies:
            async with self._session.post("/v1/embeddings", json=body, raise_for_status=True) as answer:
                self._right.append(_vectors(await answer.json()))

    async def send(self, number: int, load: Load) -> None:
        """Send one request, and look at what comes back."""
        started = time.perf_counter()
        try:
            async with self._session.post("/v1/embeddings", json=self._bodies[number]) as answer:
                content = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            load.statuses[0] += 1
            return
        load.statuses[answer.status] += 1
        if answer.status == 200:
            load.latencies.append(time.perf_counter() - started)
            load.moments.append(time.monotonic())
            load.wrong += bool(np.any(np.sum(_vectors(content) * self._right[number], axis=1) < _SAME))
        elif answer.status in (429, 503):
            load.unexplained += "retry-after" not in answer.headers


def main() -> None:
    """Start the server, load it, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUILT_IN)
    parser.add_argument("--times", type=float, default=3, help="arrivals, as a multiple of the capacity")
    parser.add_argument("--seconds", type=float, default=600, help="of overload")
    parser.add_argument("--kills", type=int, default=3, help="how often the engine is killed")
    parser.add_argument("--log", type=Path, default=Path("runs/bench/overload.log"))
    asyncio.run(_run(parser.parse_args()))


async def _run(options: argparse.Namespace) -> None:
    limits = ("--max-queued-requests", str(QUEUE), "--cache-mb", "0")
    with running(options.model, "--backend", "vllm", *limits, log=options.log) as server:
        async with open_session(server.url) as session:
            caller = Caller(session, await served_model(session))
            await caller.learn()
            await closed_loop(session, itertools.cycle(caller.bodies), clients=32, seconds=5)  # warms up
            at_once = await closed_loop(session, itertools.cycle(caller.bodies), clients=32, seconds=20)
            capacity = len(at_once.latencies) / at_once.seconds
            print(f"capacity: {capacity:.1f} requests/s of 16 texts", flush=True)
            await _overload(caller, server, capacity, options)
            await _kill(caller, session, server, capacity / 2, options.kills)


async def _overload(caller: Caller, server: Server, capacity: float, options: argparse.Namespace) -> None:
    load, memory = Load(), list[int]()

    async def watch() -> None:
        while True:
            await asyncio.sleep(options.seconds / 100)
            memory.append(server.memory())

    rate = options.times * capacity
    await _arrivals(caller, load, rate, options.seconds, watch)
    tenth = max(1, len(memory) // 10)
    before, after = np.mean(memory[tenth : 2 * tenth]), np.mean(memory[-tenth:])
    print(f"overload: {rate:.0f} arrivals/s for {options.seconds:g} s: {_said(load)}")
    print(
        f"  accepted: {len(load.latencies) / options.seconds:.1f}/s, p99 {_p99(load):.2f} s; {QUEUE} requests at "
        f"capacity take {QUEUE / capacity:.2f} s"
    )
    print(
        f"  memory: {before / 2**20:.0f} MiB after a tenth of the time, {after / 2**20:.0f} MiB at the end "
        f"({100 * (after / before - 1):+.1f} %)",
        flush=True,
    )


async def _kill(caller: Caller, session: aiohttp.ClientSession, server: Server, rate: float, kills: int) -> None:
    for number in range(kills):
        load, after = Load(), list[float]()
        await _arrivals(caller, load, rate, 120, partial(_kill_once, session, server, after), until_done=True)
        print(
            f"kill {number + 1}: {_said(load)}; /health says so after {after[0]:.2f} s, and 200 after {after[1]:.1f} s",
            flush=True,
        )


async def _kill_once(session: aiohttp.ClientSession, server: Server, after: list[float]) -> None:
    """Kill the engine; note after how many seconds the server says so, and after how many it serves again."""
    await asyncio.sleep(3)
    os.kill(server.engine(), signal.SIGKILL)
    killed = time.monotonic()
    for healthy in (False, True):
        while (await _healthy(session)) != healthy:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.02)
        after.append(time.monotonic() - killed)
    await asyncio.sleep(5)


async def _healthy(session: aiohttp.ClientSession) -> bool:
    async with session.get("/health") as answer:
        return answer.status == 200


async def _arrivals(
    caller: Caller,
    load: Load,
    rate: float,
    seconds: float,
    beside: Callable[[], Awaitable[None]],
    *,
    until_done: bool = False,
) -> None:
    """Let requests arrive at random times while something else runs; it is stopped, or ends the arrivals."""
    draw, running_beside = random.Random(0), asyncio.ensure_future(beside())
    started, at, sending = time.perf_counter(), 0.0, set[asyncio.Task[None]]()
    while (at := at + draw.expovariate(rate)) < seconds and not (until_done and running_beside.done()):
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        task = asyncio.create_task(caller.send(draw.randrange(CONTENTS), load))
        sending.add(task)
        task.add_done_callback(sending.discard)
    await asyncio.gather(*sending)
    if until_done:
        await running_beside
    running_beside.cancel()


def _vectors(answer: dict[str, Any]) -> NDArray[np.float32]:
    return np.stack([from_base64(item["embedding"]) for item in answer["data"]])


def _p99(load: Load) -> float:
    return float(np.percentile(load.latencies, 99)) if load.latencies else float("nan")


def _said(load: Load) -> str:
    answers = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(load.statuses.items()))
    return f"{answers}; {load.wrong} wrong vectors, {load.unexplained} refusals without retry-after"


if __name__ == "__main__":
    main()
