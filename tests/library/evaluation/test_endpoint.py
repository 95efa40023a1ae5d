"""An endpoint as the thing under test: our own server, on a port, over a fake engine."""

import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
import uvicorn

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendUnavailable
from mllm_embed.evaluation.encoders import EmbedderEncoder
from mllm_embed.evaluation.endpoint import Dialect, EndpointEncoder
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.types import EmbedInput, Image, Text
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with fake_embedder() as one:
        yield one


@pytest.fixture(scope="module")
def url(embedder: Embedder) -> Iterator[str]:
    app = create_app(embedder, ServerSettings())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def sprite(colour: str) -> PIL.Image.Image:
    image = PIL.Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    image.paste(colour, (5, 5, 25, 25))
    return image


def items() -> list[EmbedInput]:
    encoded = io.BytesIO()
    sprite("red").save(encoded, "PNG")
    mixed = EmbedInput((Image(encoded.getvalue()), Text("as a woman"), Image(sprite("blue"))), "Find it.")
    texts = [EmbedInput((Text(f"text {i}"),), f"Instruction {i % 3}.") for i in range(70)]
    return [EmbedInput((Image(sprite("green")),)), *texts, mixed]


@pytest.mark.parametrize("dialect", [None, "mllm-embed", "vllm"])
def test_vectors_are_those_of_the_model_behind_it(url: str, embedder: Embedder, dialect: Dialect | None) -> None:
    direct = EmbedderEncoder(embedder, precision="float32").encode(items())
    with EndpointEncoder(url + "/v1/", dialect=dialect) as endpoint:
        assert all(endpoint.accepts(item) for item in items())
        assert np.allclose(endpoint.encode(items()), direct, atol=1e-6)
        described = endpoint.describe()
    assert described["fingerprint"] == embedder.model_dir.fingerprint
    assert (described["name"], described["dialect"]) == (embedder.name, dialect or "mllm-embed")


def test_bare_strings_carry_texts_only(url: str, embedder: Embedder) -> None:
    with EndpointEncoder(url, dialect="openai") as endpoint:
        assert [endpoint.accepts(item) for item in items()] == [False, *[True] * 70, False]
        plain = [EmbedInput((Text("one"),)), EmbedInput((Text("two"),))]
        assert np.allclose(endpoint.encode(plain), embedder.embed(plain), atol=1e-6)


def test_a_refusal_keeps_the_servers_own_words(url: str) -> None:
    with pytest.raises(EvaluationError, match=r"answers 404: .*other"):
        EndpointEncoder(url, model="other")


def test_no_server_is_said_so() -> None:
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9 cannot be reached"):
        EndpointEncoder("http://127.0.0.1:9")


class Foreign(httpx.BaseTransport):
    """A server without cards, that knows no base64 and answers as it is told."""

    def __init__(self, data: Any, status: int = 200) -> None:
        self.answer = httpx.Response(status, json=data)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("authorization") != "Bearer secret":
            return httpx.Response(401, json={"error": {"message": "no such key"}})
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "theirs"}]})
        return self.answer if request.method == "POST" else httpx.Response(404, json={"detail": "Not Found"})


def foreign(monkeypatch: pytest.MonkeyPatch, data: Any, status: int = 200) -> EndpointEncoder:
    real = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: real(**options, transport=Foreign(data, status)))
    return EndpointEncoder("http://elsewhere", api_key="secret")


TWO = [EmbedInput.of("one"), EmbedInput.of("two")]


def test_another_makers_server_is_measured_with_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3, 0]}]
    endpoint = foreign(monkeypatch, {"data": rows})
    assert endpoint.describe() == {
        "name": "theirs",
        "fingerprint": "http://elsewhere theirs",
        "dialect": "openai",
    }
    assert endpoint.encode(TWO).tolist() == [[1, 0], [0, 1]]  # in order, and of length 1


def test_a_wrong_key_is_refused_in_the_servers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(monkeypatch, {})
    for key in ("wrong", None):
        with pytest.raises(EvaluationError, match="answers 401: no such key"):
            EndpointEncoder("http://elsewhere", api_key=key)


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        ({"data": [{"index": 0, "embedding": [1, 0]}]}, 200, "1 vectors for 2 inputs"),
        ({"data": "none"}, 200, "no readable embeddings"),
        ({"error": {"message": "out of memory"}}, 500, "answers 500: out of memory"),
        (["no object"], 200, "answers 200: no JSON"),
    ],
)
def test_answers_that_are_none(monkeypatch: pytest.MonkeyPatch, data: Any, status: int, reason: str) -> None:
    endpoint = foreign(monkeypatch, data, status)
    with pytest.raises(BackendUnavailable, match=reason):
        endpoint.encode(TWO)
