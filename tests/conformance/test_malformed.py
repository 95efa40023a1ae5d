"""Malformed requests at the real server on the real engine: never a 5xx, never a restart, and good ones as before.

The default run sends few to each route; many, with the answers by status:

    MALFORMED_REQUESTS=1500 pytest tests/conformance/test_malformed.py --log-cli-level=warning
"""

from __future__ import annotations

import base64
import io
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import PIL.Image
import pytest

from mllm_embed.model_dir import ModelDir
from tests.conformance.conftest import KEY
from tests.malformed import broken, mutated, valid
from tests.server_process import ServerProcess

PER_DIALECT = int(os.environ.get("MALFORMED_REQUESTS", "60"))


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def restarts(http: httpx.Client) -> str:
    return next(
        line for line in http.get("/metrics").text.splitlines() if line.startswith("mllm_embed_engine_restarts")
    )


def without_ids(answer: httpx.Response) -> dict[str, Any]:
    return {key: value for key, value in answer.json().items() if key not in ("id", "created")}


@pytest.mark.engine
@pytest.mark.parametrize("route", valid(""))
def test_whatever_is_sent_is_never_our_fault(
    http: httpx.Client,
    server: ServerProcess,
    model_dir: ModelDir,
    draw: Callable[..., PIL.Image.Image],
    route: str,
) -> None:
    buffer = io.BytesIO()
    draw(1, 40, 30).save(buffer, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    bodies = valid(picture, model_dir.recipe.name, model_dir.recipe.matryoshka_dimensions[0])[route]
    before, started = [http.post(route, json=body) for body in bodies], restarts(http)
    assert {answer.status_code for answer in before} <= {200, 404}
    chance, statuses = random.Random(route), Counter[int]()
    for _ in range(PER_DIALECT):
        content = broken(mutated(chance.choice(bodies), chance), chance)
        answer = http.post(route, content=content)
        assert answer.status_code < 500, content[:500]
        statuses[answer.status_code] += 1
    logging.getLogger(__name__).warning("%s: %s", route, dict(statuses))
    assert statuses[400] + statuses[404] > PER_DIALECT / 3, "most of it is malformed"
    assert restarts(http) == started
    assert server.process.poll() is None
    assert "Traceback" not in server.output
    for body, first in zip(bodies, before, strict=True):
        again = http.post(route, json=body)
        assert again.status_code == first.status_code
        if again.status_code == 200:
            assert without_ids(again) == without_ids(first)
