"""The deployment on a local Ray: deploy/ray-serve.yaml as it stands, replicas that come with the load, our answers."""

from __future__ import annotations

import logging
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

from mllm_embed.backends import load_backend
from mllm_embed.embedder import Embedder
from mllm_embed.model_dir import open_model_dir
from mllm_embed_serving import ray_serve
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.options import parse
from tests.error_shape import check_error
from tests.server_process import servable_fake

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
PAGE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "ray-serve.yaml").read_text())
APPLICATION = PAGE["applications"][0]
DEPLOYMENT: dict[str, Any] = APPLICATION["deployments"][0]
QUICK = {"metrics_interval_s": 0.1, "look_back_period_s": 0.3, "upscale_delay_s": 0, "target_ongoing_requests": 1}
"""What lets a test see a replica being added; the file's own numbers are for users."""


def test_the_file_is_what_ray_takes_and_its_options_are_ours() -> None:
    ServeDeploySchema.model_validate(PAGE)
    module, name = APPLICATION["import_path"].split(":")
    assert getattr(__import__(module, fromlist=[name]), name) is ray_serve.build
    options = parse(shlex.split(APPLICATION["args"]["options"]))
    assert DEPLOYMENT["name"] == ray_serve.SERVER.name
    assert DEPLOYMENT["graceful_shutdown_timeout_s"] > options.drain_timeout
    scaling = DEPLOYMENT["autoscaling_config"]
    assert 1 <= scaling["min_replicas"] < scaling["max_replicas"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--port 9000", "--port cannot be used with Ray: Ray's proxy listens"),
        ("--demo", "--demo cannot be used with Ray"),
        ("--batch-dir batches", "belongs to one server"),
        ("--adapters-dir adapters --admin-key a", "--adapters-dir cannot be used"),
        ("--max-items many", "--max-items"),
    ],
)
def test_what_a_replica_cannot_do_is_refused_before_anything_is_started(options: str, says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        ray_serve.build({"options": options})


def test_other_arguments_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="'model'"):
        ray_serve.build({"model": "a"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return servable_fake(tmp_path_factory.mktemp("ray") / "fake")


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    """A caller of the deployment in the file, which runs the fake engine here."""
    overrides = {**DEPLOYMENT, "ray_actor_options": {"num_cpus": 0.1}}
    overrides["autoscaling_config"] = {**DEPLOYMENT["autoscaling_config"], **QUICK, "max_replicas": 2}
    ray.init(num_cpus=4, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_serve, "SERVER", ray_serve.SERVER.options(**overrides))
        application = ray_serve.build({"options": f"{shlex.quote(str(model))} --backend fake --api-key k --cache-mb 0"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    serve.run(application, name=APPLICATION["name"], route_prefix=APPLICATION["route_prefix"])
    headers = {"authorization": "Bearer k"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=60) as http:
        yield http
    serve.shutdown()  # type: ignore[no-untyped-call]  # it has no annotations
    ray.shutdown()


def replicas() -> int:
    states: Any = serve.status().applications[APPLICATION["name"]].deployments[DEPLOYMENT["name"]].replica_states
    return int(states.get("RUNNING", 0))


def test_a_replica_answers_like_any_server(client: httpx.Client, model: Path) -> None:
    texts = ["a red circle", "a blue square"]
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": texts}).raise_for_status()
    opened = open_model_dir(model)
    with Embedder(opened, load_backend("fake", opened)) as embedder:
        expected = embedder.embed(texts)
    found = [item["embedding"] for item in answer.json()["data"]]
    np.testing.assert_array_equal(np.array(found, dtype=np.float32), expected)
    assert len(answer.headers.get_list("x-request-id")) == 1
    refused = client.post("/v1/embeddings", json={"model": "other", "input": "a"})
    check_error(refused.json(), refused.status_code, expected=404, code="model_not_found", param="model", says="fake")
    stranger = client.get("/v1/models", headers={"authorization": "Bearer other"})
    check_error(stranger.json(), stranger.status_code, expected=401, code="invalid_api_key")


def test_load_brings_another_replica_and_both_answer(client: httpx.Client) -> None:
    """As many requests as there are threads are under way all the time, and more than one per replica is much."""
    assert replicas() == 1
    before = client.post("/v1/embeddings", json={"model": "fake", "input": "cat"}).json()["data"]
    done = threading.Event()

    def ask(number: int) -> int:
        asked = 0
        while not done.is_set():
            body = {"model": "fake", "input": ["cat", *(f"cat {number} {item}" for item in range(200))]}
            assert client.post("/v1/embeddings", json=body).raise_for_status().json()["data"][0] == before[0]
            asked += 1
        return asked

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(ask, number) for number in range(6)]
        try:
            wait_for(lambda: replicas() == 2)
            wait_for(lambda: len(answering(client)) == 2)
        finally:
            done.set()
        assert all(each.result() > 0 for each in asking)


def answering(client: httpx.Client) -> set[str]:
    """When the counters of those that answer were made: another time for every replica."""
    pages = [client.get("/metrics").text for _ in range(8)]
    return {found for page in pages for found in re.findall(r"(?m)^mllm_embed_items_created (\S+)$", page)}


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
