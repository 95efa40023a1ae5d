"""Files and batches: what is asked for in a file, answered in a file, whatever happens to the server meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendUnavailable
from mllm_embed.types import Embedding, RenderedPrompt
from mllm_embed_serving.access.keys import KeyLimits, given_keys
from mllm_embed_serving.app import create_app
from mllm_embed_serving.batches import lines, worker
from mllm_embed_serving.batches.jobs import OPEN
from mllm_embed_serving.batches.service import BatchService
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.settings import ServerSettings
from tests.error_shape import check_error

pytestmark = pytest.mark.fast

Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    keys = given_keys(["mine", "yours"], KeyLimits())
    return ServerSettings(
        api_keys=keys, batch_folder=tmp_path, batch_concurrency=2, max_body_bytes=50_000, max_stored_bytes=100_000
    )


class Api:
    """A client of the batch routes."""

    def __init__(self, app: FastAPI, key: str = "mine") -> None:
        headers = {"authorization": f"Bearer {key}"}
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)
        self.batches: BatchService = app.state.batches

    async def upload(self, content: str | bytes, **form: str) -> httpx.Response:
        data = {"purpose": "batch", **form}
        return await self.http.post("/v1/files", data=data, files={"file": ("in.jsonl", content)})

    async def create(self, requests: Sequence[Any], **body: Any) -> dict[str, Any]:
        file = (await self.upload("\n".join(json.dumps(request) for request in requests))).json()
        wanted = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h", **body}
        answer = await self.http.post("/v1/batches", json=wanted)
        assert answer.status_code == 200, answer.text
        created: dict[str, Any] = answer.json()
        return created

    async def get(self, batch_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get(f"/v1/batches/{batch_id}")).json()
        return found

    async def finished(self, batch_id: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while (batch := await self.get(batch_id))["status"] in OPEN:  # noqa: ASYNC110  # as a client waits
                await asyncio.sleep(0.01)
        return batch

    async def lines(self, file_id: str) -> list[dict[str, Any]]:
        answer = await self.http.get(f"/v1/files/{file_id}/content")
        return [json.loads(line) for line in answer.text.splitlines()]


@asynccontextmanager
async def served(embedder: Embedder, settings: ServerSettings) -> AsyncIterator[Api]:
    app = create_app(embedder, settings)
    api = Api(app)
    api.batches.wake()
    try:
        yield api
    finally:
        await api.batches.aclose()


@pytest.fixture
async def api(embedder: Embedder, settings: ServerSettings) -> AsyncIterator[Api]:
    async with served(embedder, settings) as api:
        yield api


def request(name: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": {"model": "fake", **body}}


class Engine:
    """The engine, which takes some prompts and holds the others back until it is told to go on."""

    def __init__(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.prompts = 0, 0
        self.go = asyncio.Event()
        self.errors: list[Exception] = []
        self._embed = embedder.backend.embed
        monkeypatch.setattr(embedder.backend, "embed", self._hold)

    async def _hold(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        self.prompts += 1
        if self.errors:
            raise self.errors.pop()
        if self.prompts > self.free:
            await self.go.wait()
        return await self._embed(prompts)


@pytest.fixture
def engine(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(embedder, monkeypatch)


async def test_lines_are_answered_as_their_route_would_in_the_order_of_the_input(
    api: Api, uri: Callable[..., str]
) -> None:
    requests = [
        request("a", input="cat"),
        request("picture", input=[{"image": uri(1), "text": "at night"}, "dog"], dimensions=16),
        request("bad", input=["cat", ""]),
        request("partial", input=["cat", ""], partial=True),
        request("other model", input="cat") | {"body": {"model": "nope", "input": "cat"}},
    ]
    created = await api.create(requests, metadata={"job": "nightly"})
    assert created["object"] == "batch"
    assert created["status"] in ("validating", "in_progress")
    batch = await api.finished(created["id"])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
    assert batch["metadata"] == {"job": "nightly"}
    good, bad = await api.lines(batch["output_file_id"]), await api.lines(batch["error_file_id"])
    assert [line["custom_id"] for line in good] == ["a", "picture", "partial"]
    assert [line["custom_id"] for line in bad] == ["bad", "other model"]
    for line, sent in [(good[0], requests[0]), (good[1], requests[1]), (good[2], requests[3])]:
        direct = (await api.http.post("/v1/embeddings", json=sent["body"])).json()
        assert line["response"]["status_code"] == 200
        assert line["response"]["body"] == direct
        assert line["error"] is None
    check_error(
        bad[0]["response"]["body"],
        bad[0]["response"]["status_code"],
        expected=400,
        code="invalid_input",
        param="input[1]",
    )
    assert bad[1]["response"]["status_code"] == 404


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        ("", "empty_file", None),
        ("{", "invalid_json_line", 1),
        ("[]", "invalid_json_line", 1),
        (b"\xff\xfe", "invalid_json_line", 1),
        (json.dumps(request("", input="a")), "missing_custom_id", 1),
        (json.dumps({**request("a"), "custom_id": [3]}), "missing_custom_id", 1),
        ("\n".join([json.dumps(request("a", input="a"))] * 2), "duplicate_custom_id", 2),
        (json.dumps({**request("a"), "method": "GET"}), "invalid_method", 1),
        (json.dumps({**request("a"), "url": "/v1/chat/completions"}), "mismatched_endpoint", 1),
        (json.dumps({**request("a"), "body": None}), "invalid_request", 1),
        (json.dumps(request("a", input="a" * 60_000)), "line_too_long", 1),
        (json.dumps(request("a", input=["a", "b", "c", "d"])), "too_many_inputs", None),
        ("\n".join(json.dumps(request(str(n), input="a")) for n in range(4)), "too_many_requests", None),
    ],
)
async def test_a_file_that_is_wrong_fails_as_a_whole_before_anything_is_run(
    api: Api, monkeypatch: pytest.MonkeyPatch, content: str | bytes, code: str, line: int | None
) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 3)
    monkeypatch.setattr(lines, "MAX_INPUTS", 3)
    file = (await api.upload(content)).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = await api.finished((await api.http.post("/v1/batches", json=body)).json()["id"])
    assert batch["status"] == "failed"
    assert (batch["errors"]["data"][0]["code"], batch["errors"]["data"][0]["line"]) == (code, line)
    assert batch["output_file_id"] is None


async def test_what_is_done_when_a_batch_is_cancelled_is_kept(api: Api, engine: Engine, until: Until) -> None:
    engine.free = 3
    created = await api.create([request(str(number), input=f"cat {number}") for number in range(9)])
    await until(lambda: engine.prompts == 5)
    answer = await api.http.post(f"/v1/batches/{created['id']}/cancel")
    assert answer.json()["status"] == "cancelling"
    engine.go.set()
    batch = await api.finished(created["id"])
    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 9, "completed": 5, "failed": 0}
    assert [line["custom_id"] for line in await api.lines(batch["output_file_id"])] == ["0", "1", "2", "3", "4"]
    again = await api.http.post(f"/v1/batches/{created['id']}/cancel")
    assert again.json()["status"] == "cancelled"


async def test_a_restart_goes_on_with_what_is_not_done(
    embedder: Embedder, settings: ServerSettings, engine: Engine, until: Until
) -> None:
    engine.free = 3
    async with served(embedder, settings) as api:
        created = await api.create([request(str(number), input=f"cat {number}") for number in range(6)])
        await until(lambda: engine.prompts == 5)
    engine.go.set()
    before = engine.prompts
    async with served(embedder, settings) as api:
        batch = await api.finished(created["id"])
        assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
        assert len(await api.lines(batch["output_file_id"])) == 6
        assert engine.prompts == before + 3, "three were done, and are not done again"


async def test_an_engine_that_restarts_is_waited_for(api: Api, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_AGAIN_S", 0)
    engine.errors = [BackendUnavailable("gone")] * 3
    engine.go.set()
    batch = await api.finished((await api.create([request("a", input="cat")]))["id"])
    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


async def test_a_batch_that_takes_too_long_expires_with_what_is_done(
    api: Api, engine: Engine, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    engine.free = 2
    created = await api.create([request(str(number), input=f"cat {number}") for number in range(6)])
    await until(lambda: engine.prompts == 4)
    monkeypatch.setattr(worker, "is_over", lambda _: True)
    engine.go.set()
    batch = await api.finished(created["id"])
    assert batch["status"] == "expired"
    assert batch["request_counts"] == {"total": 6, "completed": 4, "failed": 0}


async def test_files_are_listed_described_returned_and_deleted(api: Api) -> None:
    ids = [(await api.upload(f"{number}")).json()["id"] for number in range(3)]
    listed = (await api.http.get("/v1/files", params={"limit": 2})).json()
    assert [file["id"] for file in listed["data"]] == ids[:0:-1]
    assert listed["has_more"]
    rest = (await api.http.get("/v1/files", params={"after": listed["last_id"], "purpose": "batch"})).json()
    assert [file["id"] for file in rest["data"]] == ids[:1]
    file = (await api.http.get(f"/v1/files/{ids[0]}")).json()
    assert (file["object"], file["bytes"], file["filename"], file["purpose"]) == ("file", 1, "in.jsonl", "batch")
    assert (await api.http.get(f"/v1/files/{ids[0]}/content")).content == b"0"
    assert (await api.http.delete(f"/v1/files/{ids[0]}")).json() == {"id": ids[0], "object": "file", "deleted": True}
    answer = await api.http.get(f"/v1/files/{ids[0]}")
    check_error(answer.json(), answer.status_code, expected=404, code="not_found", param="file_id", says=ids[0])


async def test_nobody_sees_what_belongs_to_another_key(api: Api, embedder: Embedder) -> None:
    created = await api.create([request("a", input="cat")])
    batch = await api.finished(created["id"])
    api.http.headers["authorization"] = "Bearer yours"
    for path in (
        f"files/{batch['input_file_id']}",
        f"files/{batch['output_file_id']}/content",
        f"batches/{batch['id']}",
    ):
        assert (await api.http.get(f"/v1/{path}")).status_code == 404
    assert (await api.http.post(f"/v1/batches/{batch['id']}/cancel")).status_code == 404
    assert (await api.http.get("/v1/files")).json()["data"] == (await api.http.get("/v1/batches")).json()["data"] == []


@pytest.mark.parametrize("name", ["..", "../batches.sqlite", "%2e%2e%2fbatches.sqlite", "file-", "a" * 5000])
async def test_an_id_is_never_a_path(api: Api, name: str) -> None:
    assert (await api.http.get(f"/v1/files/{name}/content")).status_code == 404


async def test_uploads_are_checked(api: Api) -> None:
    answer = await api.upload("a", purpose="fine-tune")
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="purpose")
    for body in ({"content": b"{}"}, {"data": {"purpose": "batch"}}, {"files": {"other": b""}}):
        answer = await api.http.post("/v1/files", **body)
        check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="file")
    answer = await api.upload("a" * 100_001)
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="file", says="100000")
    assert (await api.upload("a" * 60_000)).status_code == 200, "files may be longer than other bodies"
    assert (await api.upload("a" * 60_000)).status_code == 400, "all together have a limit, too"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": 3}, "metadata"),
        ({"metadata": {"a": 3}}, "metadata.a"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    ],
)
async def test_batches_are_checked(api: Api, changes: dict[str, Any], param: str) -> None:
    file = (await api.upload("{}")).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/embeddings", "completion_window": "24h", **changes}
    answer = await api.http.post("/v1/batches", json=body)
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param=param)


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "x"}, {"limit": "101"}, {"after": "nope"}])
async def test_pages_are_checked(api: Api, query: dict[str, str]) -> None:
    answer = await api.http.get("/v1/batches", params=query)
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param=next(iter(query)))


async def test_a_file_that_is_gone_fails_the_batch(api: Api, engine: Engine) -> None:
    first = await api.create([request("a", input="cat")])
    second = await api.create([request("a", input="cat")])
    await api.http.delete(f"/v1/files/{second['input_file_id']}")
    engine.go.set()
    assert (await api.finished(first["id"]))["status"] == "completed"
    batch = await api.finished(second["id"])
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "file_not_found")


async def test_without_a_folder_there_are_none(embedder: Embedder) -> None:
    api = Api(create_app(embedder))
    for path in ("/v1/files", "/v1/batches"):
        answer = await api.http.get(path)
        check_error(answer.json(), answer.status_code, expected=404, code="unknown_url", says="--batch-dir")


async def test_two_servers_cannot_share_a_folder(api: Api, settings: ServerSettings, embedder: Embedder) -> None:
    with pytest.raises(InvalidSettings, match="locked"):
        create_app(embedder, settings)
