"""What slow pictures of others do to requests that hold only text.

    python benchmarks/serving/media_latency.py
    python benchmarks/serving/media_latency.py --delay 3 --rounds 5

A local host delivers each picture after three seconds. Text requests are timed while nothing else is under way, while
one such URL is in flight all the time, and while four are, in turn. A server that fetches on its engine's thread lets
the text wait for the picture.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import aiohttp
import PIL.Image
from rich.console import Console
from rich.table import Table
from servers import running

from mllm_embed.model_dir import BUILT_IN
from mllm_embed_serving.bench.load import Measurement, closed_loop, open_session, served_model
from mllm_embed_serving.bench.workloads import Workload

IN_FLIGHT = (0, 1, 4)


def main() -> None:
    """Start the picture host and the server, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUILT_IN)
    parser.add_argument("--delay", type=float, default=3.0, help="seconds until a picture is delivered")
    parser.add_argument("--clients", type=int, default=4, help="clients that send texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="per case and round")
    parser.add_argument("--log", type=Path, default=Path("runs/bench/media_latency.log"))
    asyncio.run(_run(parser.parse_args()))


async def _run(options: argparse.Namespace) -> None:
    async with _slow_host(options.delay) as host:
        allowed = ("--allow-url-media", "--private-media-host", host)
        with running(options.model, "--backend", "vllm", *allowed, log=options.log) as server:
            async with open_session(server.url) as session:
                await _compare(session, await served_model(session), host, options)


async def _compare(session: aiohttp.ClientSession, model: str, host: str, options: argparse.Namespace) -> None:
    found: dict[int, list[Measurement]] = {count: [] for count in IN_FLIGHT}
    pictures = 0
    texts = Workload(kind="text").requests(model)
    await closed_loop(session, texts, clients=options.clients, seconds=2)  # warms up
    for _ in range(options.rounds):
        for count in IN_FLIGHT:
            async with _asking(session, model, host, count) as answered:
                one = await closed_loop(session, texts, clients=options.clients, seconds=options.seconds)
                found[count].append(one)
            pictures += len(answered)
    table = Table(
        *("slow URLs in flight", "requests/s", "p50 ms", "p99 ms", "p99 to idle"),
        title=f"{model}: texts of {options.clients} clients, pictures that take {options.delay:g} s "
        f"({pictures} answered), {options.rounds} rounds of {options.seconds:g} s",
    )
    p99 = {count: median(one.percentile(99) for one in each) for count, each in found.items()}
    for count, each in found.items():
        rate = median(len(one.latencies) / one.seconds for one in each)
        p50 = median(one.percentile(50) for one in each)
        row = (str(count), f"{rate:.0f}", f"{p50:.1f}", f"{p99[count]:.1f}", f"{p99[count] / p99[0]:.2f}")
        table.add_row(*row)
    Console(width=120).print(table)


@contextlib.asynccontextmanager
async def _asking(session: aiohttp.ClientSession, model: str, host: str, count: int) -> AsyncIterator[list[int]]:
    """Keep so many requests with a slow URL in flight; yield the statuses of those that were answered."""
    statuses: list[int] = []

    async def ask() -> None:
        while True:
            part = {"type": "image_url", "image_url": {"url": f"http://{host}/{next(_NUMBERS)}.png"}}
            body = {"model": model, "messages": [{"role": "user", "content": [part]}]}
            async with session.post("/v1/embeddings", json=body) as answer:
                statuses.append(answer.status)
            if statuses[-1] != 200:
                raise SystemExit(f"a picture was answered with {statuses[-1]}")

    tasks = [asyncio.create_task(ask()) for _ in range(count)]
    try:
        await asyncio.sleep(0.2 if count else 0)
        yield statuses
        if any(task.done() for task in tasks):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


_NUMBERS = itertools.count()


@contextlib.asynccontextmanager
async def _slow_host(delay: float) -> AsyncIterator[str]:
    """Deliver a picture of its own for every path, after a while; yield HOST:PORT."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled at the end, when pictures are still under way.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            number = int(path[1:].partition(b".")[0])
            await asyncio.sleep(delay)
            body = _picture(number)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


def _picture(number: int) -> bytes:
    buffer = io.BytesIO()
    color = (number % 256, number // 256 % 256, 99)
    PIL.Image.new("RGB", (224, 224), color).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
