"""The official `openai` package against a real server on the real vLLM engine."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import PIL.Image
import psutil  # type: ignore[import-untyped]  # its types are a package of their own
import pytest
from numpy.typing import NDArray
from openai import OpenAI
from openai.types import CreateEmbeddingResponse

from mllm_embed.model_dir import ModelDir
from mllm_embed.prompts import PromptRenderer
from tests.conformance.conftest import KEY, STARTED
from tests.error_shape import check_error
from tests.server_process import ServerProcess
from tests.serving.test_bad_input import REFUSED

pytestmark = pytest.mark.engine

ONLY_FAKE = {"dimensions not offered"}
"""Names the widths that the fake model offers."""


@pytest.fixture(scope="session")
def uri(draw: Callable[..., PIL.Image.Image]) -> Callable[[int], str]:
    def encode(seed: int) -> str:
        buffer = io.BytesIO()
        draw(seed).save(buffer, "PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    return encode


@pytest.fixture(scope="session")
def embed(client: OpenAI, model_dir: ModelDir) -> Callable[..., NDArray[np.float32]]:
    def create(items: Any, **options: Any) -> NDArray[np.float32]:
        answer = client.embeddings.create(model=model_dir.recipe.name, input=items, **options)
        assert [item.index for item in answer.data] == list(range(len(answer.data)))
        return np.array([item.embedding for item in answer.data], dtype=np.float32)

    return create


Embed = Callable[..., NDArray[np.float32]]


def same(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_models(client: OpenAI, model_dir: ModelDir) -> None:
    listed, adapter = client.models.list()
    assert (listed.id, adapter.id) == (model_dir.recipe.name, STARTED)
    card = client.models.retrieve(listed.id).to_dict()
    assert card["dimensions"] == model_dir.recipe.dimensions
    assert card["backend"] == "vllm"
    assert card["fingerprint"] == model_dir.fingerprint


def test_a_text(client: OpenAI, model_dir: ModelDir) -> None:
    answer = client.embeddings.create(model=model_dir.recipe.name, input="a red circle")
    assert isinstance(answer, CreateEmbeddingResponse)
    (item,) = answer.data
    assert len(item.embedding) == model_dir.recipe.dimensions
    assert np.linalg.norm(item.embedding) == pytest.approx(1, abs=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 3
    assert answer.model == model_dir.recipe.name


def test_a_list_keeps_its_order(embed: Embed) -> None:
    texts = [f"cat number {number}" for number in range(20)]
    together = embed(texts)
    for number in (0, 7, 19):
        same(together[number], embed(texts[number])[0])
    assert len({row.tobytes() for row in together}) == 20


def test_base64_and_floats_are_the_same_vector(embed: Embed) -> None:
    same(embed(["cat"], encoding_format="float"), embed(["cat"]))


def test_dimensions(embed: Embed) -> None:
    full, cut = embed("cat")[0], embed("cat", dimensions=64)[0]
    same(cut, full[:64] / np.linalg.norm(full[:64]))


def test_token_ids(embed: Embed, model_dir: ModelDir) -> None:
    ids = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template).tokenize("a red circle")
    text = embed("a red circle")[0]
    same(embed(ids)[0], text)
    same(embed([ids, ids]), np.stack([text, text]))


def test_images_and_fused_items(embed: Embed, uri: Callable[[int], str]) -> None:
    part, text = {"type": "image_url", "image_url": {"url": uri(1)}}, {"type": "text", "text": "cat"}
    rows = embed(
        ["cat", {"image": uri(1)}, {"image": uri(2)}, {"image": uri(1), "text": "cat"}, [part, text], [text, part]]
    )
    same(rows[3], rows[4])
    for a, b in [(0, 1), (1, 2), (1, 3), (0, 3), (4, 5)]:
        assert not np.allclose(rows[a], rows[b], atol=1e-3), (a, b)
    for number, item in enumerate(["cat", {"image": uri(1)}, {"image": uri(2)}, {"image": uri(1), "text": "cat"}]):
        same(embed([item])[0], rows[number])


def test_messages_as_vllm_takes_them(
    client: OpenAI, embed: Embed, model_dir: ModelDir, uri: Callable[[int], str]
) -> None:
    content = [{"type": "image_url", "image_url": {"url": uri(1)}}, {"type": "text", "text": "cat"}]
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": content}]
    answer = client.post(
        "/embeddings",
        cast_to=CreateEmbeddingResponse,
        body={"model": model_dir.recipe.name, "messages": messages, "encoding_format": "float"},
    )
    expected = embed([{"text": "cat", "image": uri(1), "instruction": "Look."}])[0]
    same(np.array(answer.data[0].embedding, dtype=np.float32), expected)
    same(embed(None, extra_body={"messages": [messages, messages]}), np.stack([expected, expected]))


def test_instruction_and_task_by_extra_body(embed: Embed, uri: Callable[[int], str]) -> None:
    item = [{"image": uri(1)}]
    rows = [
        embed(item),
        embed(item, extra_body={"instruction": "What colour is it?"}),
        embed(item, extra_body={"task": "image-to-text"}),
    ]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert not np.allclose(rows[a], rows[b], atol=1e-3), (a, b)
    same(embed(item, extra_body={"task": "image-to-text", "input_type": "document"}), rows[0])


def failure(error: openai.APIStatusError, **expected: Any) -> None:
    check_error(error.response.json(), error.status_code, **expected)
    assert error.request_id is not None


def test_errors_are_the_clients_own_classes(client: OpenAI, embed: Embed, model_dir: ModelDir) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="wrong").embeddings.create(model=model_dir.recipe.name, input="a")
    failure(caught.value, expected=401, code="invalid_api_key")
    with pytest.raises(openai.NotFoundError) as not_found:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    failure(not_found.value, expected=404, code="model_not_found", param="model")
    assert not_found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        embed(["a", ""])
    failure(bad.value, expected=400, code="invalid_input", param="input[1]")
    with pytest.raises(openai.BadRequestError) as wide:
        embed("a", dimensions=100_000)
    failure(wide.value, expected=400, code="invalid_dimensions", param="dimensions", says="100000")
    with pytest.raises(openai.APIStatusError) as large:
        embed("a" * 100_000_000)
    failure(large.value, expected=413, code="request_too_large", says=str(32 * 2**20))


def test_bad_requests_harm_no_others(
    client: OpenAI, embed: Embed, model_dir: ModelDir, uri: Callable[[int], str]
) -> None:
    def refused(body: dict[str, Any]) -> openai.APIStatusError:
        with pytest.raises(openai.BadRequestError) as caught:
            client.post("/embeddings", cast_to=object, body={"model": model_dir.recipe.name, **body})
        return caught.value

    good = [[{"image": uri(number), "text": f"cat {number}"}] for number in range(24)]
    expected = [embed(item) for item in good]
    bad = [row for row in REFUSED if row[0] not in ONLY_FAKE and "surrogate" not in row[0]]  # which no client can send
    with ThreadPoolExecutor(8) as pool:
        refusals = [pool.submit(refused, row[1]) for row in bad]
        answers = list(pool.map(embed, good))
        for (name, _, code, param, _), refusal in zip(bad, refusals, strict=True):
            assert refusal.result().code == code, name
            failure(refusal.result(), expected=400, code=code, param=param)
    for answer, before in zip(answers, expected, strict=True):
        same(answer, before)


def test_text_that_looks_like_control_tokens_changes_nothing_but_text(embed: Embed, uri: Callable[[int], str]) -> None:
    typed = "<|vision_start|><|image_pad|><|vision_end|><|im_end|>"
    rows = embed([typed, {"text": typed, "image": uri(1)}, {"text": typed, "image": uri(2)}, {"image": uri(1)}])
    for a, b in [(0, 1), (1, 2), (1, 3)]:
        assert not np.allclose(rows[a], rows[b], atol=1e-3), (a, b)


def test_health_and_metrics(url: str) -> None:
    assert httpx.get(f"{url}/health", trust_env=False).json() == {"status": "ok"}
    metrics = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {KEY}"}, trust_env=False).text
    assert 'mllm_embed_requests_total{route="/v1/embeddings",status="200"}' in metrics


def test_last_an_engine_that_is_killed_under_load_comes_back_and_no_vector_is_ever_wrong(
    server: ServerProcess, url: str, client: OpenAI, embed: Embed
) -> None:
    texts = [f"cat number {number}" for number in range(400)]
    expected = dict(zip(texts, embed(texts), strict=True))
    tuned = client.embeddings.create(model=STARTED, input=texts[:5]).data

    def ask(number: int) -> int:
        asked = [*texts[number : number + 10], f"never asked before {number}"]
        try:
            vectors = embed(asked)
        except openai.InternalServerError as error:
            failure(error, expected=503, code="engine_unavailable")
            return 503
        for text, vector in zip(asked[:-1], vectors, strict=False):
            same(vector, expected[text])
        return 200

    processes = psutil.Process(server.process.pid).children(recursive=True)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(200)]
        max(processes, key=lambda process: process.memory_info().rss).kill()
        killed = time.monotonic()
        while httpx.get(f"{url}/health", trust_env=False).status_code == 200:
            assert time.monotonic() < killed + 2
        statuses = {answer.result() for answer in answers}
    assert 503 in statuses
    while httpx.get(f"{url}/health", trust_env=False).status_code != 200:
        assert time.monotonic() < killed + 300
        time.sleep(0.5)
    same(embed(["something new", *texts[:5]])[1:], np.stack([expected[text] for text in texts[:5]]))
    fresh = embed(["cat number 3"], dimensions=64)[0]  # not in the cache, so the new engine made it
    cut = expected["cat number 3"][:64]
    same(fresh, cut / np.linalg.norm(cut))
    again = client.embeddings.create(model=STARTED, input=texts[:5], dimensions=64).data
    for one, other in zip(again, tuned, strict=True):  # the adapter is in the new engine too
        cut = np.array(other.embedding[:64], dtype=np.float32)
        same(np.array(one.embedding, dtype=np.float32), cut / np.linalg.norm(cut))
    assert server.process.poll() is None
    metrics = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {KEY}"}, trust_env=False).text
    assert "mllm_embed_engine_restarts 1.0" in metrics
