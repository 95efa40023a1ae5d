from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp.web
import httpx
import PIL.Image
import pytest
import uvicorn
from aiohttp.test_utils import RawTestServer

from mllm_embed.embedder import Embedder
from mllm_embed_serving.access.keys import KeyLimits
from mllm_embed_serving.app import create_app
from mllm_embed_serving.bench import cli
from mllm_embed_serving.bench.load import Measurement, closed_loop, open_loop, open_session
from mllm_embed_serving.bench.workloads import Kind, Workload
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast


def first(workload: Workload, count: int) -> list[dict[str, Any]]:
    return list(itertools.islice(workload.requests("fake"), count))


@pytest.mark.parametrize("kind", ["text", "image", "mixture"])
async def test_every_request_differs_the_stream_is_reproducible_and_the_server_takes_it(
    client: httpx.AsyncClient, kind: Kind
) -> None:
    bodies = first(Workload(kind=kind, pixels=32), 20)
    assert len({json.dumps(body) for body in bodies}) == 20
    assert bodies == first(Workload(kind=kind, pixels=32), 20)
    assert bodies != first(Workload(kind=kind, pixels=32, seed=1), 20)
    for body in bodies[:3]:
        assert (await client.post("/v1/embeddings", json=body)).status_code == 200


def test_repeated_requests_are_a_share_of_all() -> None:
    bodies = [json.dumps(body) for body in first(Workload(kind="text", repeated=0.9), 2000)]
    assert 100 < len(set(bodies)) < 300


async def test_a_closed_loop_keeps_as_many_under_way_as_there_are_clients(url: str) -> None:
    async with open_session(url) as session:
        found = await closed_loop(session, Workload(kind="text", items=3).requests("fake"), clients=2, seconds=0.2)
    assert len(found.latencies) >= 2
    assert found.items == 3 * len(found.latencies)
    assert found.tokens > found.items
    assert found.summary()["failed"] == 0


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    async def never(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        started.append(request)
        await release.wait()
        return aiohttp.web.Response(status=500)

    started: list[aiohttp.web.BaseRequest] = []
    release = asyncio.Event()
    async with RawTestServer(never) as server, open_session(str(server.make_url("/"))) as session:
        loop = asyncio.create_task(open_loop(session, Workload(kind="text").requests("m"), rate=200, seconds=0.2))
        await asyncio.sleep(0.4)
        assert len(started) > 10
        release.set()
        found = await loop
    assert found.summary()["failed"] == len(started)


def test_the_table_counts_refusals_apart() -> None:
    found = Measurement(2.0, [0.1, 0.2, 0.3, 0.4], Counter({200: 4, 429: 3, 500: 2, 0: 1}), 8, 80)
    summary = found.summary()
    assert (summary["requests_per_s"], summary["items_per_s"], summary["tokens_per_s"]) == (2, 4, 40)
    assert (summary["answered"], summary["refused"], summary["failed"]) == (4, 3, 3)
    assert summary["p50_ms"] == pytest.approx(250)


@pytest.fixture
async def url(embedder: Embedder) -> AsyncIterator[str]:
    app = create_app(embedder, ServerSettings(limits=KeyLimits()))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn sets no event
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.mark.parametrize("rate", [None, 50.0])
async def test_the_command_prints_a_table_and_draws_a_plot(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    await asyncio.to_thread(cli.bench, "serve", url=url, seconds=0.2, clients=2, pixels=32, rate=rate, output=tmp_path)
    out = capsys.readouterr().out
    for word in ("text", "image", "mixture", "requests/s", "p99 ms", "429"):
        assert word in out
    assert set(json.loads((tmp_path / "latencies.json").read_text())) == {"text", "image", "mixture"}
    with PIL.Image.open(tmp_path / "latencies.png") as drawn:
        assert drawn.width > 300


def test_no_server_is_one_sentence() -> None:
    with pytest.raises(InvalidSettings, match="does not list a model"):
        cli.bench("serve", url="http://127.0.0.1:9", seconds=0.1)
