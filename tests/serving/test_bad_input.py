"""Whatever a caller sends: a 4xx that names the limit and the offender, and the next request works."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from mllm_embed_serving.settings import ServerSettings
from tests.error_shape import check_error

pytestmark = pytest.mark.fast

Post = Callable[..., Any]

TEXT_PART = {"type": "text", "text": "a"}
_IHDR = b"IHDR" + (20000).to_bytes(4) + (10000).to_bytes(4) + b"\x08\x02\0\0\0"
PNG_OF_200_MPX = base64.b64encode(
    b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + _IHDR + zlib.crc32(_IHDR).to_bytes(4) + b"\0\0\0\x01IDAT\0\0\0\0\0"
).decode()

REFUSED: list[tuple[str, dict[str, Any], str, str | None, str | tuple[str, ...]]] = [
    ("no input", {}, "invalid_parameter", "input", "missing"),
    ("both", {"input": "a", "messages": []}, "invalid_parameter", "input", "together with messages"),
    ("null input", {"input": None}, "invalid_parameter", "input", "missing"),
    ("number", {"input": 3}, "invalid_parameter", "input", "an integer"),
    ("boolean", {"input": True}, "invalid_parameter", "input", "a boolean"),
    ("empty list", {"input": []}, "invalid_parameter", "input", "empty array"),
    ("empty inner list", {"input": ["a", []]}, "invalid_parameter", "input[1]", "empty array"),
    ("empty text", {"input": ""}, "invalid_input", "input", "must not be empty"),
    ("empty text in a list", {"input": ["a", "b", " "]}, "invalid_input", "input[2]", "must not be empty"),
    ("null item", {"input": ["a", None]}, "invalid_parameter", "input[1]", "null"),
    ("boolean item", {"input": [True]}, "invalid_parameter", "input[0]", "a boolean"),
    ("float item", {"input": [1.5]}, "invalid_parameter", "input[0]", "a number"),
    ("boolean token", {"input": [70, True]}, "invalid_parameter", "input[1]", "a boolean"),
    ("float token", {"input": [[70, 71.0]]}, "invalid_parameter", "input[0][1]", "a number"),
    ("text token", {"input": [["a", 1]]}, "invalid_parameter", "input[0][0]", "a string"),
    ("token outside", {"input": [[70], [10**9]]}, "invalid_input", "input[1]", "1000000000"),
    ("negative token", {"input": [-1]}, "invalid_input", "input", "-1"),
    ("control token", {"input": [[70], [0]]}, "invalid_input", "input[1]", "control token"),
    ("too many tokens", {"input": [70] * 100_001}, "invalid_parameter", "input", ("100000", "100001")),
    ("too long text", {"input": ["a", "cat " * 9000]}, "context_length_exceeded", "input[1]", "8192"),
    ("too many characters", {"input": ["a", "a" * 400_001]}, "invalid_parameter", "input[1]", ("400000", "400001")),
    ("too many tokens together", {"input": ["cat " * 4000] * 99}, "max_tokens_per_request", None, ("300,000", "fewer")),
    ("too many items", {"input": ["a"] * 5000}, "invalid_parameter", "input", ("2048", "5000")),
    ("too many conversations", {"messages": [[]] * 5000}, "invalid_parameter", "messages", ("2048", "5000")),
    ("surrogate", {"input": ["a", "b\ud800"]}, "invalid_parameter", "input[1]", "surrogate"),
    ("surrogate instruction", {"input": "a", "instruction": "\udfff"}, "invalid_parameter", "instruction", "surrogate"),
    ("empty object", {"input": [{}]}, "invalid_parameter", "input[0]", "text, an image, or both"),
    ("unknown key", {"input": [{"txt": "a"}]}, "invalid_parameter", "input[0]", "'txt'"),
    ("unknown key beside", {"input": [{"text": "a", "video": "b"}]}, "invalid_parameter", "input[0]", "'video'"),
    ("number as text", {"input": [{"text": 3}]}, "invalid_parameter", "input[0].text", "an integer"),
    ("empty text key", {"input": [{"text": ""}]}, "invalid_input", "input[0]", "must not be empty"),
    ("number as image", {"input": ["a", {"image": 3}]}, "invalid_parameter", "input[1].image", "an integer"),
    ("bad instruction", {"input": [{"text": "a", "instruction": 1}]}, "invalid_parameter", "input[0].instruction", ""),
    ("bare part", {"input": [TEXT_PART]}, "invalid_parameter", "input[0]", "array"),
    ("unknown part", {"input": [[{"type": "audio_url"}]]}, "invalid_parameter", "input[0][0].type", "'audio_url'"),
    ("part without type", {"input": [[{"text": "a"}]]}, "invalid_parameter", "input[0][0].type", "must be one of"),
    ("part of a wrong type", {"input": [[TEXT_PART, "a"]]}, "invalid_parameter", "input[0][0]", "token id"),
    (
        "part without url",
        {"input": [[{"type": "image_url", "image_url": {}}]]},
        "invalid_parameter",
        "input[0][0].image_url.url",
        "null",
    ),
    ("wrong base64", {"input": ["a", {"image": "data:image/png;base64,@@@"}]}, "invalid_image", "input[1]", "base64"),
    ("wrong bare base64", {"input": [{"image": "abc"}]}, "invalid_parameter", "input[0].image", "base64"),
    ("not a picture", {"input": [{"image": base64.b64encode(b"hello").decode()}]}, "invalid_image", "input[0]", "PNG"),
    (
        "200 Mpx",
        {"input": ["a", {"image": PNG_OF_200_MPX}]},
        "image_too_large",
        "input[1]",
        ("40,000,000", "200,000,000"),
    ),
    ("path", {"input": [{"image": "/etc/passwd"}]}, "invalid_parameter", "input[0].image", "never read"),
    ("relative path", {"input": [{"image": "../a.png"}]}, "invalid_parameter", "input[0].image", "never read"),
    ("file url", {"input": [{"image": "file:///etc/passwd"}]}, "media_not_allowed", "input[0]", "file:///etc/passwd"),
    ("ftp url", {"input": ["a", {"image": "ftp://a/b.png"}]}, "media_not_allowed", "input[1]", "ftp://a/b.png"),
    ("http url", {"input": [{"image": "http://example.org/a.png"}]}, "media_not_allowed", "input[0]", "URLs"),
    ("unknown task", {"input": "a", "task": "nope"}, "invalid_parameter", "task", "text-to-image"),
    ("task of a wrong type", {"input": "a", "task": 3}, "invalid_parameter", "task", "an integer"),
    (
        "task and instruction",
        {"input": "a", "task": "default", "instruction": "b"},
        "invalid_parameter",
        "instruction",
        "not both",
    ),
    ("unknown input_type", {"input": "a", "input_type": "user"}, "invalid_parameter", "input_type", "'query'"),
    ("unknown format", {"input": "a", "encoding_format": "hex"}, "invalid_parameter", "encoding_format", "'hex'"),
    ("dimensions zero", {"input": "a", "dimensions": 0}, "invalid_parameter", "dimensions", "at least 1"),
    ("dimensions too large", {"input": "a", "dimensions": 65}, "invalid_dimensions", "dimensions", ("64", "65")),
    ("dimensions huge", {"input": "a", "dimensions": 10**400}, "invalid_dimensions", "dimensions", "64"),
    ("dimensions not offered", {"input": "a", "dimensions": 20}, "invalid_dimensions", "dimensions", "16, 32, 64"),
    ("dimensions true", {"input": "a", "dimensions": True}, "invalid_parameter", "dimensions", "a boolean"),
    ("dimensions text", {"input": "a", "dimensions": "16"}, "invalid_parameter", "dimensions", "a string"),
    ("dimensions float", {"input": "a", "dimensions": 16.0}, "invalid_parameter", "dimensions", "a number"),
    ("model missing", {"input": "a", "model": None}, "invalid_parameter", "model", "null"),
    ("model of a wrong type", {"input": "a", "model": ["fake"]}, "invalid_parameter", "model", "an array"),
    (
        "chat_template",
        {"input": "a", "chat_template": "{{x}}"},
        "invalid_parameter",
        "chat_template",
        "change the vector",
    ),
    (
        "truncation",
        {"input": "a", "truncate_prompt_tokens": 5},
        "invalid_parameter",
        "truncate_prompt_tokens",
        "refused",
    ),
    ("not normalised", {"input": "a", "normalize": False}, "invalid_parameter", "normalize", "refused"),
    ("messages text", {"messages": "a"}, "invalid_parameter", "messages", "a string"),
    ("messages empty", {"messages": []}, "invalid_parameter", "messages", "empty array"),
    ("no user", {"messages": [{"role": "system", "content": "a"}]}, "invalid_parameter", "messages", "user message"),
    ("no content", {"messages": [{"role": "user"}]}, "invalid_parameter", "messages[0].content", "null"),
    (
        "unknown role",
        {"messages": [{"role": "tool", "content": "a"}]},
        "invalid_parameter",
        "messages[0].role",
        "'tool'",
    ),
    (
        "two users",
        {"messages": [[{"role": "user", "content": "a"}] * 2]},
        "invalid_parameter",
        "messages[0][1]",
        "another",
    ),
    (
        "assistant speaks",
        {"messages": [{"role": "assistant", "content": "a"}]},
        "invalid_parameter",
        "messages[0]",
        "empty",
    ),
    (
        "empty conversation",
        {"messages": [[{"role": "user", "content": "a"}], []]},
        "invalid_parameter",
        "messages[1]",
        "user message",
    ),
    ("empty user", {"messages": [[{"role": "user", "content": " "}]]}, "invalid_input", "messages[0]", "empty"),
    (
        "picture as system",
        {
            "messages": [
                {"role": "system", "content": [{"type": "image_url", "image_url": "data:x"}]},
                {"role": "user", "content": "a"},
            ]
        },
        "invalid_parameter",
        "messages",
        "must be text",
    ),
    (
        "file in a message",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
            ]
        },
        "media_not_allowed",
        "messages",
        "file:///etc/passwd",
    ),
]


@pytest.mark.parametrize(
    ("body", "code", "param", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_refused(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, param: str | None, says: str
) -> None:
    answer = await client.post("/v1/embeddings", content=json.dumps({"model": "fake", **body}))
    check_error(answer.json(), answer.status_code, expected=400, code=code, param=param, says=says)
    assert answer.headers["x-request-id"]
    assert (await client.post("/v1/embeddings", json={"model": "fake", "input": "a"})).status_code == 200


@pytest.mark.parametrize("name", ["nope", "", "a" * 1000])
async def test_an_unknown_model_is_404(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/v1/embeddings", json={"model": name, "input": "a"})
    check_error(answer.json(), answer.status_code, expected=404, code="model_not_found", param="model", says="'fake'")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\xff", "not valid JSON"),
        (b'{"model": "fake", "input": "a", "dimensions": NaN}', "NaN is not a JSON number"),
        (b'{"model": "fake", "input": "a", "dimensions": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"model": "fake", "input": [' + b"1" * 5000 + b"]}", "not valid JSON"),
        (b'{"model": "fake", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"[]", "must be a JSON object, but is an array"),
        (b"null", "but is null"),
    ],
)
async def test_a_body_that_is_no_json_object(client: httpx.AsyncClient, body: bytes, says: str) -> None:
    answer = await client.post("/v1/embeddings", content=body)
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_json", says=says)


async def test_huge_numbers_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/embeddings", content=b'{"model": "fake", "input": "a", "dimensions": 1e999}')
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="dimensions")


class TestLimits:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(max_body_bytes=20_000, max_images=3, max_image_bytes=3000, max_request_pixels=2000)

    async def test_a_declared_length_is_refused_before_the_body_is_read(self, client: httpx.AsyncClient) -> None:
        read = False

        async def stream() -> AsyncIterator[bytes]:
            nonlocal read
            read = True
            yield b"x"

        headers = {"content-length": "20001"}
        answer = await client.post("/v1/embeddings", content=stream(), headers=headers)
        says = ("20000", "20001")
        check_error(answer.json(), answer.status_code, expected=413, code="request_too_large", says=says)
        assert not read

    async def test_a_chunked_body_is_cut_off(self, client: httpx.AsyncClient) -> None:
        sent = 0

        async def stream() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(100):
                sent += 1000
                yield b" " * 1000

        answer = await client.post("/v1/embeddings", content=stream())
        check_error(answer.json(), answer.status_code, expected=413, code="request_too_large", says="20000")
        assert sent <= 22_000

    async def test_a_body_of_just_the_limit_passes(self, client: httpx.AsyncClient) -> None:
        body = json.dumps({"model": "fake", "input": "a"}).encode()
        assert (await client.post("/v1/embeddings", content=body.ljust(20_000))).status_code == 200

    async def test_images_are_counted_over_all_items(self, embed: Post, png: Callable[..., str]) -> None:
        answer = await embed(input=[{"image": png(seed, 8, 8)} for seed in range(4)])
        says = ("at most 3 images", "4")
        check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="input", says=says)

    async def test_pixels_are_counted_over_all_items(self, embed: Post, png: Callable[..., str]) -> None:
        assert (await embed(input=[{"image": png(0, 25, 40)}, {"image": png(1, 25, 40)}])).status_code == 200
        answer = await embed(input=["a", {"image": png(2, 25, 40)}, {"image": png(3, 25, 41)}])
        error = answer.json()["error"]
        says = "2,000 pixels together"
        check_error(
            answer.json(), answer.status_code, expected=400, code="image_too_large", param=error["param"], says=says
        )

    async def test_image_bytes(self, embed: Post) -> None:
        answer = await embed(input=[{"image": base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 3000).decode()}])
        says = "at most 3,000 bytes"
        check_error(
            answer.json(), answer.status_code, expected=400, code="image_too_large", param="input[0]", says=says
        )


class TestUrlMedia:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(allow_url_media=True)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "0.0.0.0"])  # noqa: S104
    async def test_private_addresses_stay_refused(self, embed: Post, host: str) -> None:
        answer = await embed(input=[{"image": f"http://{host}:1/a.png"}])
        check_error(answer.json(), answer.status_code, expected=400, code="media_not_allowed", param="input[0]")

    async def test_files_stay_refused(self, embed: Post) -> None:
        answer = await embed(input=[{"image": "file:///etc/passwd"}])
        check_error(answer.json(), answer.status_code, expected=400, code="media_not_allowed", param="input[0]")


async def test_good_requests_are_unharmed_by_bad_ones(client: httpx.AsyncClient, embed: Post) -> None:
    async def bad(body: dict[str, Any]) -> int:
        return (await client.post("/v1/embeddings", content=json.dumps({"model": "fake", **body}))).status_code

    expected = [(await embed(input=f"text {number}")).json()["data"] for number in range(20)]
    good = [embed(input=f"text {number}") for number in range(20)]
    answers = await asyncio.gather(*good, *(bad(row[1]) for row in REFUSED))
    assert [answer.json()["data"] for answer in answers[:20]] == expected
    assert set(answers[20:]) == {400}


async def test_a_refusal_is_logged_with_its_request_id(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="mllm_embed_serving"):
        await client.post("/v1/embeddings", json={"model": "x"}, headers={"x-request-id": "my-id.1"})
    assert "my-id.1" in caplog.text
