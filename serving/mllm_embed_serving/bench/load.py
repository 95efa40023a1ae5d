"""Sends requests and takes the time: a closed loop of clients that wait, or an open one of arrivals that do not.

Sends with aiohttp, where all else here uses httpx: a generator shares the machine with the server, and aiohttp leaves
it most of the cores.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np


@dataclass
class Measurement:
    """What one load found.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: seconds of each request that was answered 200.
        statuses: answers by HTTP status; 0 where there was none.
        items: vectors returned.
        tokens: tokens that the server counted.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    items: int = 0
    tokens: int = 0

    def percentile(self, share: float) -> float:
        """Return the latency that `share` percent of the answers keep, in milliseconds."""
        return float(np.percentile(self.latencies, share) * 1000) if self.latencies else float("nan")

    def summary(self) -> dict[str, float | int]:
        """Return the numbers of the table."""
        good = len(self.latencies)
        return {
            "requests_per_s": good / self.seconds,
            "items_per_s": self.items / self.seconds,
            "tokens_per_s": self.tokens / self.seconds,
            "p50_ms": self.percentile(50),
            "p95_ms": self.percentile(95),
            "p99_ms": self.percentile(99),
            "answered": good,
            "refused": self.statuses[429],
            "failed": self.statuses.total() - good - self.statuses[429],
        }


def open_session(url: str, api_key: str | None = None) -> aiohttp.ClientSession:
    """Return what sends to a server, on as many connections as are asked for; to be closed."""
    return aiohttp.ClientSession(
        base_url=url,
        headers={} if api_key is None else {"authorization": f"Bearer {api_key}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=300),
    )


async def served_model(session: aiohttp.ClientSession) -> str:
    """Return the name of the first model that a server lists."""
    async with session.get("/v1/models", raise_for_status=True) as answer:
        return str((await answer.json())["data"][0]["id"])


async def closed_loop(
    session: aiohttp.ClientSession, bodies: Iterator[dict[str, Any]], *, clients: int, seconds: float
) -> Measurement:
    """Keep a number of requests under way: each client sends its next one when it has the answer to its last.

    Args:
        session: sends.
        bodies: what to send.
        clients: requests under way at any time.
        seconds: how long new requests are sent.
    """
    found = Measurement()
    started = time.perf_counter()

    async def work() -> None:
        while time.perf_counter() < started + seconds:
            await _send(session, next(bodies), time.perf_counter(), found)

    await asyncio.gather(*(work() for _ in range(clients)))
    found.seconds = time.perf_counter() - started
    return found


async def open_loop(
    session: aiohttp.ClientSession, bodies: Iterator[dict[str, Any]], *, rate: float, seconds: float, seed: int = 0
) -> Measurement:
    """Send requests as strangers do, at random times and whether or not the last ones have been answered.

    Latencies count from when a request was due, so that a generator that falls behind does not flatter the server.

    Args:
        session: sends.
        bodies: what to send.
        rate: requests per second, on average (a Poisson process).
        seconds: how long new requests are sent.
        seed: decides the arrivals.
    """
    found = Measurement()
    started = time.perf_counter()
    sending = []
    for due in _arrivals(rate, seconds, seed):
        await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
        sending.append(asyncio.create_task(_send(session, next(bodies), started + due, found)))
    await asyncio.gather(*sending)
    found.seconds = time.perf_counter() - started
    return found


def _arrivals(rate: float, seconds: float, seed: int) -> Iterable[float]:
    draw, at = random.Random(seed), 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        yield at


async def _send(session: aiohttp.ClientSession, body: dict[str, Any], due: float, found: Measurement) -> None:
    try:
        async with session.post("/v1/embeddings", json=body) as answer:
            content = await answer.json() if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError):
        found.statuses[0] += 1
        return
    found.statuses[answer.status] += 1
    if answer.status == 200:
        found.latencies.append(time.perf_counter() - due)
        found.items += len(content["data"])
        found.tokens += content["usage"]["total_tokens"]
