"""Requests per second of a running server, for texts and for images, one item per request.

    mllm-embed serve &
    python benchmarks/serving.py --url http://127.0.0.1:8000 --clients 16 --requests 400

Every request differs, so that no cache answers for the engine. The client shares the machine with the server unless it
is run elsewhere, and machines are noisy: compare only within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import PIL.Image


def main() -> None:
    """Measure and print one line per kind of request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=16, help="requests under way at any time")
    parser.add_argument("--requests", type=int, default=400, help="requests of each kind")
    parser.add_argument("--pixels", type=int, default=224, help="side of the pictures")
    options = parser.parse_args()
    asyncio.run(_measure_all(options))


async def _measure_all(options: argparse.Namespace) -> None:
    key = os.environ.get("MLLM_EMBED_API_KEY")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=options.clients)
    async with httpx.AsyncClient(
        base_url=options.url, headers=headers, limits=limits, timeout=300, trust_env=False
    ) as client:
        card = (await client.get("/v1/models")).raise_for_status().json()["data"][0]
        print(f"{card['id']} on {card['backend']}, {options.clients} clients, {options.requests} requests of each kind")
        print(f"{'kind':14} {'requests/s':>10} {'p50 ms':>8} {'p95 ms':>8} {'tokens/s':>9}")
        for kind, items in _workloads(options.requests, options.pixels).items():
            await _measure(kind, client, card["id"], items, options.clients)


def _workloads(count: int, side: int) -> dict[str, list[Any]]:
    numbers = range(count)
    pictures = [_picture(number, side) for number in numbers]
    return {
        "text": [f"a photo of {number} cats on a red sofa" for number in numbers],
        "image": [{"image": picture} for picture in pictures],
        "image + text": [{"image": picture, "text": f"at night {n}"} for n, picture in enumerate(reversed(pictures))],
    }


def _picture(seed: int, side: int) -> str:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise).resize((side, side)).save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


async def _measure(kind: str, client: httpx.AsyncClient, model: str, items: Sequence[Any], clients: int) -> None:
    latencies: list[float] = []
    tokens = 0
    waiting = iter(items)

    async def work() -> None:
        nonlocal tokens
        for item in waiting:  # shared by all workers, so each item is sent once
            body = {"model": model, "input": [item], "encoding_format": "base64"}
            sent = time.perf_counter()
            answer = (await client.post("/v1/embeddings", json=body)).raise_for_status().json()
            latencies.append(time.perf_counter() - sent)
            tokens += answer["usage"]["total_tokens"]

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    seconds = time.perf_counter() - started
    p50, p95 = np.percentile(latencies, [50, 95]) * 1000
    print(f"{kind:14} {len(items) / seconds:10.1f} {p50:8.0f} {p95:8.0f} {tokens / seconds:9.0f}")


if __name__ == "__main__":
    main()
