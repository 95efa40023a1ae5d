"""A real server on the real engine that is told to stop while it works."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from mllm_embed.model_dir import ModelDir
from tests.error_shape import check_error
from tests.server_process import ServerProcess

TEXTS = [f"a red circle beside a blue square, number {number}" for number in range(1000)]


@pytest.mark.engine
def test_what_is_under_way_is_answered_and_what_is_new_is_refused(model_dir: ModelDir, tmp_path: Path) -> None:
    name = model_dir.recipe.name
    with ServerProcess(name, "--backend", "vllm", "--port", "0", log=tmp_path / "log") as server:
        url = server.wait_ready()
        # The connection is opened before: a server that stops takes no new ones for long.
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client, ThreadPoolExecutor(1) as pool:
            client.get("/health")
            body = {"model": name, "input": TEXTS}
            asking = pool.submit(lambda: httpx.post(f"{url}/v1/embeddings", json=body, timeout=120, trust_env=False))
            while "mllm_embed_queued_items 1000.0" not in client.get("/metrics").text:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            while (health := client.get("/health")).status_code == 200:
                time.sleep(0.005)
            check_error(health.json(), health.status_code, expected=503, code="server_stopping", says="stop")
            refused = client.post("/v1/embeddings", json={"model": name, "input": "cat"})
            check_error(refused.json(), refused.status_code, expected=503, code="server_stopping", says="again")
            assert int(refused.headers["retry-after"]) >= 1
            assert not asking.done(), "there was something to finish"
            answer = asking.result()
        assert answer.status_code == 200
        assert len(answer.json()["data"]) == len(TEXTS)
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.output
