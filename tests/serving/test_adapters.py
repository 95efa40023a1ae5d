"""LoRA adapters by model name: served from the start, loaded and unloaded by admins, each with vectors of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendUnavailable, IncompatibleCheckpoint, ModelError
from mllm_embed.types import Embedding, RenderedPrompt
from mllm_embed_serving.access.keys import KeyLimits, all_keys
from mllm_embed_serving.app import create_app
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.supervision import SupervisedBackend
from tests.error_shape import check_error

pytestmark = pytest.mark.fast

ADMIN = {"authorization": "Bearer admin"}
USER = {"authorization": "Bearer user"}


def adapter(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a small adapter; the fake engine tells adapters apart by their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **config}))
    weights = np.random.default_rng(seed).standard_normal((4, 8), dtype=np.float32)
    save_file({"base_model.model.q_proj.lora_B.weight": weights}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    keys = all_keys(["user"], None, KeyLimits(), admins=["admin"])
    start = {"red": adapter(tmp_path / "red", 1), "blue": adapter(tmp_path / "blue", 2)}
    return ServerSettings(
        api_keys=keys,
        adapters=start,
        adapters_folder=tmp_path / "more",
        max_adapters=3,
        batch_folder=tmp_path / "batches",
    )


@pytest.fixture
async def client(embedder: Embedder, settings: ServerSettings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(embedder, settings)
    await app.state.service.load_adapters()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=USER) as client:
        yield client
    await app.state.batches.aclose()


async def vector(client: httpx.AsyncClient, model: str) -> list[float]:
    answer = await client.post("/v1/embeddings", json={"model": model, "input": "cat"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    found: list[float] = answer.json()["data"][0]["embedding"]
    return found


async def load(client: httpx.AsyncClient, name: str, path: str, **more: Any) -> httpx.Response:
    body = {"lora_name": name, "lora_path": path, **more}
    return await client.post("/v1/load_lora_adapter", json=body, headers=ADMIN)


async def unload(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post("/v1/unload_lora_adapter", json={"lora_name": name}, headers=ADMIN)


async def test_each_name_has_vectors_and_a_card_of_its_own(client: httpx.AsyncClient) -> None:
    cards = (await client.get("/v1/models")).json()["data"]
    assert [card["id"] for card in cards] == ["fake", "red", "blue"]
    assert [card["parent"] for card in cards] == [None, "fake", "fake"]
    assert len({card["fingerprint"] for card in cards}) == 3
    hashes = [card["adapter_sha256"] for card in cards]
    assert hashes[0] is None
    assert hashes[1] != hashes[2]
    assert (await client.get("/v1/models/blue")).json() == cards[2]
    vectors = [await vector(client, name) for name in ("fake", "red", "blue")]
    assert len({tuple(each) for each in vectors}) == 3
    assert [await vector(client, name) for name in ("fake", "red", "blue")] == vectors, "the cache tells them apart"


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/embeddings", {"input": "cat"}),
        ("/v2/embed", {"texts": ["cat"], "input_type": "search_query"}),
        ("/v1/multimodalembeddings", {"inputs": [{"content": [{"type": "text", "text": "cat"}]}]}),
        ("/v1/rerank", {"query": "cat", "documents": ["dog", "cats"]}),
        ("/v2/rerank", {"query": "cat", "documents": ["dog", "cats"]}),
        ("/v1/score", {"text_1": "cat", "text_2": "dog"}),
    ],
)
async def test_every_dialect_takes_the_names_and_refuses_others_in_its_own_shape(
    client: httpx.AsyncClient, route: str, body: dict[str, Any]
) -> None:
    plain, red = [(await client.post(route, json={**body, "model": name})).json() for name in ("fake", "red")]
    assert {**plain, "id": 0, "model": 0, "created": 0} != {**red, "id": 0, "model": 0, "created": 0}
    answer = await client.post(route, json={**body, "model": "green"})
    assert answer.status_code == 404
    says = answer.json().get("message") or answer.json().get("detail") or answer.json()["error"]["message"]
    assert says == "the model 'green' does not exist here; this server serves 'fake', 'red', 'blue'"
    described = (await client.get("/openapi.json")).json()["paths"][route]["post"]["requestBody"]
    assert described["content"]["application/json"]["schema"]["properties"]["model"] == {
        "enum": ["fake", "red", "blue"]
    }


async def test_an_admin_loads_and_unloads(client: httpx.AsyncClient, tmp_path: Path) -> None:
    adapter(tmp_path / "more" / "green", 3)
    card = (await load(client, "green", "green")).json()
    assert (card["id"], card["object"], card["parent"]) == ("green", "model", "fake")
    first = await vector(client, "green")
    assert (await unload(client, "green")).json() == {"id": "green", "object": "model", "deleted": True}
    answer = await client.post("/v1/embeddings", json={"model": "green", "input": "cat"})
    check_error(answer.json(), answer.status_code, expected=404, code="model_not_found", param="model", says="green")
    adapter(tmp_path / "more" / "green", 4)
    again = (await load(client, "green", str(tmp_path / "more" / "green"))).json()
    assert again["fingerprint"] != card["fingerprint"]
    assert await vector(client, "green") != first, "neither the cache nor the engine remembers the former one"


async def test_others_may_not(client: httpx.AsyncClient) -> None:
    for route in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        answer = await client.post(route, json={"lora_name": "a", "lora_path": "a"})
        check_error(answer.json(), answer.status_code, expected=403, code="permission_denied", says="admin")


async def test_it_is_off_unless_there_is_a_folder_and_then_it_needs_an_admin(embedder: Embedder) -> None:
    transport = httpx.ASGITransport(create_app(embedder, ServerSettings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await load(client, "a", "a")
    check_error(answer.json(), answer.status_code, expected=404, code="unknown_url", says="--adapters-dir")
    with pytest.raises(InvalidSettings, match="admin"):
        ServerSettings(adapters_folder=Path(), api_keys=all_keys(["user"], None, KeyLimits()))


@pytest.mark.parametrize(
    ("body", "code", "param", "says"),
    [
        ({"lora_path": "green"}, "invalid_parameter", "lora_name", "string"),
        ({"lora_name": " ", "lora_path": "green"}, "invalid_parameter", "lora_name", "empty"),
        ({"lora_name": "g"}, "invalid_parameter", "lora_path", "string"),
        ({"lora_name": "red", "lora_path": "green"}, "invalid_parameter", "lora_name", "already served"),
        ({"lora_name": "fake", "lora_path": "green"}, "invalid_parameter", "lora_name", "already served"),
        ({"lora_name": "g", "lora_path": "../red"}, "invalid_parameter", "lora_path", "folder of adapters"),
        ({"lora_name": "g", "lora_path": "/etc"}, "invalid_parameter", "lora_path", "folder of adapters"),
        ({"lora_name": "g", "lora_path": "out"}, "invalid_parameter", "lora_path", "folder of adapters"),
        ({"lora_name": "g", "lora_path": "a\x00"}, "invalid_parameter", "lora_path", "folder of adapters"),
        ({"lora_name": "g", "lora_path": "none"}, "invalid_adapter", None, "does not hold adapter_config.json"),
        ({"lora_name": "g", "lora_path": "prompt"}, "invalid_adapter", None, "'PROMPT_TUNING'"),
        ({"lora_name": "g", "lora_path": "damaged"}, "invalid_adapter", None, "damaged"),
        ({"lora_name": "g", "lora_path": "green", "load_inplace": True}, "invalid_parameter", "load_inplace", "unload"),
    ],
)
async def test_what_cannot_be_loaded_is_said_in_one_sentence(
    client: httpx.AsyncClient, tmp_path: Path, body: dict[str, Any], code: str, param: str | None, says: str
) -> None:
    more = tmp_path / "more"
    adapter(more / "green")
    adapter(more / "prompt", peft_type="PROMPT_TUNING")
    (adapter(more / "damaged") / "adapter_model.safetensors").write_bytes(b"x")
    (more / "out").symlink_to(tmp_path / "red")
    answer = await client.post("/v1/load_lora_adapter", json=body, headers=ADMIN)
    check_error(answer.json(), answer.status_code, expected=400, code=code, param=param, says=says)
    assert str(tmp_path) not in answer.text
    assert len((await client.get("/v1/models")).json()["data"]) == 3


async def test_there_is_room_for_so_many(client: httpx.AsyncClient, tmp_path: Path) -> None:
    for name in ("a", "b"):
        adapter(tmp_path / "more" / name)
    assert (await load(client, "a", "a")).status_code == 200
    answer = await load(client, "b", "b")
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="lora_name", says="3")
    assert (await unload(client, "red")).status_code == 200
    assert (await load(client, "b", "b")).status_code == 200


async def test_the_served_model_and_unknown_ones_are_not_unloaded(client: httpx.AsyncClient) -> None:
    answer = await unload(client, "fake")
    check_error(
        answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="lora_name", says="itself"
    )
    answer = await unload(client, "green")
    check_error(answer.json(), answer.status_code, expected=404, code="model_not_found", param="model", says="green")


async def test_what_is_under_way_is_answered_before_an_adapter_is_freed(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
) -> None:
    expected = await vector(client, "red")
    served = client._transport.app.state.service.models.find("red")  # type: ignore[attr-defined]
    backend = served.embedder.backend
    freed: list[bool] = []
    entered, go = asyncio.Event(), asyncio.Event()
    embed, aclose = backend.embed, backend.aclose

    async def slow(prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        entered.set()
        await go.wait()
        assert not freed
        found: list[Embedding] = await embed(prompts)
        return found

    async def close() -> None:
        freed.append(True)
        await aclose()

    monkeypatch.setattr(backend, "embed", slow)
    monkeypatch.setattr(backend, "aclose", close)
    body = {"model": "red", "input": ["cat", "dog"]}
    asking = asyncio.create_task(client.post("/v1/embeddings", json=body))
    await entered.wait()
    unloading = asyncio.create_task(unload(client, "red"))
    await until(lambda: "red" not in client._transport.app.state.service.models.names)  # type: ignore[attr-defined]
    refused = await client.post("/v1/embeddings", json={"model": "red", "input": "cat"})
    assert refused.status_code == 404
    assert not unloading.done()
    go.set()
    answer = await asking
    assert answer.status_code == 200
    assert answer.json()["data"][0]["embedding"] == expected
    assert (await unloading).status_code == 200
    assert freed


async def test_a_line_of_a_batch_may_name_an_adapter(client: httpx.AsyncClient, until: Callable[..., Any]) -> None:
    lines = [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": name, "input": "cat"},
        }
        for name in ("red", "green")
    ]
    upload = {"file": ("a.jsonl", "\n".join(map(json.dumps, lines)).encode())}
    file = (await client.post("/v1/files", files=upload, data={"purpose": "batch"})).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = (await client.post("/v1/batches", json=body)).json()
    while batch["status"] != "completed":
        await asyncio.sleep(0.01)
        batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
    good = json.loads((await client.get(f"/v1/files/{batch['output_file_id']}/content")).text)
    assert good["response"]["body"]["data"][0]["embedding"] == await vector(client, "red")
    bad = json.loads((await client.get(f"/v1/files/{batch['error_file_id']}/content")).text)
    assert bad["response"]["status_code"] == 404


async def test_an_engine_that_is_started_anew_gets_its_adapters_again(
    embedder: Embedder, tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mllm_embed.adapters import open_adapter
    from mllm_embed.backends.fake import FakeBackend
    from mllm_embed_serving import supervision

    monkeypatch.setattr(supervision, "POLL_S", 0.005)
    backend = SupervisedBackend(FakeBackend(64), lambda: FakeBackend(64))
    folder = adapter(tmp_path / "red")
    view = await backend.with_adapter(open_adapter(embedder.model_dir, "red", folder))
    prompt = [RenderedPrompt((1, 2, 3))]
    (before,) = await view.embed(prompt)
    assert not np.array_equal(before.vector, (await backend.embed(prompt))[0].vector)
    await backend.current().aclose()
    with pytest.raises(BackendUnavailable):
        await backend.embed(prompt)
    await until(lambda: backend.restarts == 1)
    assert np.array_equal((await view.embed(prompt))[0].vector, before.vector)
    adapter(folder, 9)
    await backend.current().aclose()
    await until(lambda: backend.restarts == 2)
    with pytest.raises(IncompatibleCheckpoint, match="changed on disk"):
        await view.embed(prompt)
    await backend.aclose()


async def test_an_adapter_from_the_command_line_that_is_not_there_stops_the_server(
    embedder: Embedder, tmp_path: Path
) -> None:
    app = create_app(embedder, ServerSettings(adapters={"red": tmp_path}))
    with pytest.raises(ModelError, match="'red'"):
        await app.state.service.load_adapters()
