"""Regions of pictures and videos in requests: the library's own vectors, in every dialect, and what is refused."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.types import EmbedInput, Image, Region, RunLengths, Video
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings
from tests.error_shape import check_error
from tests.library.test_video import film

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
BOX = [2, 3, 20, 15]
RUNS = {"size": [20, 24], "counts": [100, 50, 330]}


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(max_video_bytes=100_000, max_video_seconds=6.0, max_video_frames=10, max_images=20)


@pytest.fixture(scope="session")
def clip() -> bytes:
    """Five seconds, ten frames a second."""
    return film(50)


def base(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_part(picture: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture}, **more}


def video_part(data: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base(data)}"}, **more}


def mask_file(box: tuple[int, int, int, int] = (2, 3, 20, 15)) -> bytes:
    mask, buffer = PIL.Image.new("L", (24, 20)), io.BytesIO()
    mask.paste(255, box)
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def refuses(answer: httpx.Response, *, code: str, param: str | None, says: str = "") -> None:
    check_error(answer.json(), answer.status_code, expected=400, code=code, param=param, says=says)


def only(vector: Any) -> Any:
    return np.asarray(vector, dtype=np.float32)


# Regions


@pytest.mark.parametrize(
    ("written", "region"),
    [
        ({"box": BOX}, Region(box=(2, 3, 20, 15))),
        ({"point": [4.5, 6]}, Region(point=(4.5, 6))),
        ({"mask": base(mask_file())}, Region(mask=mask_file())),
        ({"mask": f"data:image/png;base64,{base(mask_file())}"}, Region(mask=mask_file())),
        ({"mask": RUNS}, Region(mask=RunLengths((20, 24), (100, 50, 330)))),
    ],
)
async def test_a_region_gives_the_library_s_vector(
    ask: Post, embedder: Embedder, png: Callable[..., str], written: dict[str, Any], region: Region
) -> None:
    (expected,) = await embedder.aembed([EmbedInput.of(Image(base64.b64decode(png(1)), region))])
    picture = f"data:image/png;base64,{png(1)}"
    for item in (
        {"image": picture, "region": written},
        {"image": png(1), "region": written},
        [image_part(picture, region=written)],
        [{"type": "image_base64", "image_base64": png(1), "region": written}],
    ):
        (found,) = (await ask("/v1/embeddings", input=[item]))["data"]
        np.testing.assert_array_equal(only(found["embedding"]), expected.vector)


async def test_every_dialect_takes_regions(ask: Post, uri: Callable[..., str]) -> None:
    part = image_part(uri(1), region={"box": BOX})
    (ours,) = (await ask("/v1/embeddings", input=[[part]], input_type="document"))["data"]
    expected = ours["embedding"]
    message = [{"role": "user", "content": [part]}]
    (chat,) = (await ask("/v1/embeddings", messages=message, input_type="document"))["data"]
    assert chat["embedding"] == expected
    cohere = await ask("/v2/embed", inputs=[{"content": [part]}], input_type="search_document")
    assert cohere["embeddings"]["float"] == [expected]
    voyage = await ask("/v1/multimodalembeddings", inputs=[{"content": [part]}], input_type="document")
    assert voyage["data"][0]["embedding"] == expected
    whole, same = [image_part(uri(1))], [part]
    ranked = (await ask("/v1/rerank", query=same, documents=[whole, same]))["results"]
    assert ranked[0]["index"] == 1


async def test_regions_of_one_picture_are_told_apart_by_cache_and_flights(ask: Post, uri: Callable[..., str]) -> None:
    regions: list[Any] = [
        None,
        {"box": BOX},
        {"box": [2, 3, 20, 16]},
        {"point": [2, 3]},
        {"point": [20, 3]},
        {"mask": base(mask_file((0, 0, 9, 9)))},
        {"mask": base(mask_file((0, 0, 9, 12)))},
        {"mask": RUNS},
        {"mask": {**RUNS, "counts": [100, 52, 328]}},
    ]
    items = [{"image": uri(1), "region": region} for region in regions]
    first = [row["embedding"] for row in (await ask("/v1/embeddings", input=items))["data"]]
    assert len({tuple(vector) for vector in first}) == len(regions)
    again = [row["embedding"] for row in (await ask("/v1/embeddings", input=items[::-1]))["data"]]
    assert again == first[::-1]


async def test_what_an_encoder_of_regions_made_is_not_found_by_another(tmp_path: Path, uri: Callable[..., str]) -> None:
    item = [image_part(uri(1), region={"box": BOX})]
    settings = ServerSettings(cache_folder=tmp_path)
    answers = []
    with fake_embedder(policy=settings.media_policy()) as plain:
        for embedder in (plain, Embedder(plain.model_dir, plain.backend, region_encoder=WholePicture())):
            transport = httpx.ASGITransport(create_app(embedder, settings))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answers.append((await client.post("/v1/embeddings", json={"model": "fake", "input": [item]})).json())
    one, other = (answer["data"][0]["embedding"] for answer in answers)
    assert one != other


class WholePicture:
    """Looks at no region."""

    name = "whole"

    def encode(self, picture: PIL.Image.Image, region: Region, mask: Any) -> list[Any]:
        del region, mask
        return [Image(picture)]


@pytest.mark.parametrize(
    ("region", "code", "param", "says"),
    [
        ("left", "invalid_parameter", "input[1].region", "must be an object with one of point, box and mask"),
        ({}, "invalid_parameter", "input[1].region", "must be one of point, box and mask, but is none"),
        ({"boxes": []}, "invalid_parameter", "input[1].region", "must be an object with one of point, box and mask"),
        ({"box": [1, 2, 3]}, "invalid_parameter", "input[1].region", "must be 4 finite numbers"),
        ({"box": [1, 2, 3, "4"]}, "invalid_parameter", "input[1].region", "must be 4 finite numbers"),
        ({"box": [4, 4, 4, 8]}, "invalid_parameter", "input[1].region", "left < right and top < bottom"),
        ({"point": [1e999, 2]}, "invalid_parameter", "input[1].region", "must be 2 finite numbers"),
        ({"point": [1, 2], "box": BOX}, "invalid_parameter", "input[1].region", "but is point and box"),
        ({"point": [24, 2]}, "invalid_input", "input[1]", "picture of 24 x 20 pixels, but is 24, 2"),
        ({"box": [0, 0, 24, 21]}, "invalid_input", "input[1]", "picture of 24 x 20 pixels, but is 0, 0, 24, 21"),
        ({"mask": {**RUNS, "size": [24, 20]}}, "invalid_input", "input[1]", "24 x 20 pixels, but is 20 x 24"),
        ({"mask": {**RUNS, "counts": [1]}}, "invalid_parameter", "input[1].region", "must add up to its 480 pixels"),
        ({"mask": {**RUNS, "counts": [1] * 100_001}}, "invalid_parameter", "input[1].region", "at most 100,000 runs"),
        ({"mask": {**RUNS, "counts": [480]}}, "invalid_input", "input[1]", "the mask of the region is empty"),
        ({"mask": "/etc/passwd"}, "invalid_parameter", "input[1].region.mask", "never read"),
        ({"mask": "https://example.org/a.png"}, "media_not_allowed", "input[1]", "but is a URL"),
        ({"mask": base(b"hello")}, "invalid_image", "input[1]", "the image's format must be one of"),
    ],
)
async def test_a_region_that_cannot_be_is_refused(
    client: httpx.AsyncClient, uri: Callable[..., str], region: Any, code: str, param: str, says: str
) -> None:
    body = json.dumps({"model": "fake", "input": ["a", {"image": uri(1), "region": region}]})
    answer = await client.post("/v1/embeddings", content=body.replace("Infinity", "1e999"))
    refuses(answer, code=code, param=param, says=says)


async def test_a_region_of_no_picture_is_refused(embed: Post) -> None:
    answer = await embed(input=[{"text": "a", "region": {"box": BOX}}])
    refuses(answer, code="invalid_parameter", param="input[0].region")


# Videos


async def test_a_video_gives_the_library_s_vector_and_says_which_frames(
    ask: Post, embedder: Embedder, clip: bytes
) -> None:
    item = EmbedInput.of("before", Video(clip, frames=4), "after")
    (expected,) = await embedder.aembed([item])
    around = [{"type": "text", "text": "before"}, {"type": "text", "text": "after"}]
    for part in (
        video_part(clip, frames=4),
        {"type": "video_url", "video_url": f"data:;base64,{base(clip)}", "frames": 4},
        {"type": "video_base64", "video_base64": base(clip), "frames": 4},
    ):
        answer = await ask("/v1/embeddings", input=["a", [around[0], part, around[1]]])
        text, found = answer["data"]
        np.testing.assert_array_equal(only(found["embedding"]), expected.vector)
        assert found["frame_times"] == [list(expected.frame_times[0])]
        assert found["frame_times"][0] == pytest.approx([0.0, 1.6, 3.3, 4.9], abs=0.11)
        assert "frame_times" not in text


async def test_sampling(ask: Post, clip: bytes) -> None:
    parts = [video_part(clip), video_part(clip, fps=1), video_part(clip, fps=2.5, frames=3)]
    (one,) = (await ask("/v1/embeddings", input=[parts[1:]]))["data"]
    assert [len(times) for times in one["frame_times"]] == [5, 3]
    (default,) = (await ask("/v1/embeddings", input=[[parts[0]]]))["data"]
    assert len(default["frame_times"][0]) == 8


async def test_every_dialect_takes_videos(ask: Post, clip: bytes) -> None:
    part = video_part(clip, frames=3)
    (ours,) = (await ask("/v1/embeddings", input=[[part]], input_type="document"))["data"]
    cohere = await ask("/v2/embed", inputs=[{"content": [part]}], input_type="search_document")
    assert (cohere["embeddings"]["float"], cohere["frame_times"]) == ([ours["embedding"]], [ours["frame_times"]])
    voyage = await ask("/v1/multimodalembeddings", inputs=[{"content": [part]}], input_type="document")
    assert (voyage["data"][0]["embedding"], voyage["data"][0]["frame_times"]) == (
        ours["embedding"],
        ours["frame_times"],
    )
    ranked = (await ask("/v1/rerank", query=[part], documents=["a", [part]]))["results"]
    assert ranked[0]["index"] == 1


@pytest.mark.parametrize("where", ["memory", "disk"])
async def test_a_known_result_says_the_frames_too(tmp_path: Path, clip: bytes, where: str) -> None:
    body = {"model": "fake", "input": [[video_part(clip, frames=3)], [video_part(clip, frames=4)], "a"]}
    settings = ServerSettings(cache_folder=tmp_path, cache_bytes=2**20 if where == "memory" else None)
    with fake_embedder(policy=settings.media_policy()) as embedder:
        transport = httpx.ASGITransport(create_app(embedder, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            first, again = [(await client.post("/v1/embeddings", json=body)).json() for _ in range(2)]
            metrics = (await client.get("/metrics")).text
    assert f'mllm_embed_cache_hits_total{{where="{where}"}} 3.0' in metrics
    assert again == first
    assert [len(row["frame_times"][0]) for row in again["data"][:2]] == [3, 4]


@pytest.mark.parametrize(
    ("part", "code", "param", "says"),
    [
        ({"video_url": None}, "invalid_parameter", "input[0][0].video_url", "must be a string"),
        ({"video_url": {}}, "invalid_parameter", "input[0][0].video_url.url", "must be a string"),
        ({"video_url": "/etc/passwd"}, "invalid_parameter", "input[0][0].video_url", "never read"),
        ({"video_url": "file:///etc/passwd"}, "media_not_allowed", "input[0]", "a video must be a data URI"),
        ({"video_url": "https://example.org/a.mp4"}, "media_not_allowed", "input[0]", "video URLs are not allowed"),
        ({"video_url": "data:;base64,"}, "invalid_image", "input[0]", "the video is empty (0 bytes)"),
        ({"video_url": base(film(50)[:400])}, "invalid_image", "input[0]", "truncated, corrupt"),
        ({"video_url": base(b"no film")}, "invalid_image", "input[0]", "corrupt or of an unsupported format"),
        ({"video_url": base(b"x" * 100_001)}, "image_too_large", "input[0]", "at most 100,000 bytes"),
        ({"frames": 11}, "invalid_parameter", "input[0][0].frames", "may be at most 10, but is 11"),
        ({"frames": 0}, "invalid_parameter", "input[0][0].frames", "at least 1"),
        ({"frames": "8"}, "invalid_parameter", "input[0][0].frames", "an integer"),
        ({"fps": 0}, "invalid_parameter", "input[0][0].fps", "must be greater than 0"),
        ({"fps": 10**400}, "invalid_parameter", "input[0][0].fps", "less than 1e9"),
        ({"fps": True}, "invalid_parameter", "input[0][0].fps", "a number"),
    ],
)
async def test_a_video_that_cannot_be_is_refused(
    embed: Post, clip: bytes, part: dict[str, Any], code: str, param: str, says: str
) -> None:
    answer = await embed(input=[[{**video_part(clip), **part}]])
    refuses(answer, code=code, param=param, says=says)


async def test_a_long_video_is_refused(embed: Post) -> None:
    answer = await embed(input=["a", [video_part(film(80))]])
    refuses(answer, code="image_too_large", param="input[1]", says="a video may last at most 6 seconds")


async def test_frames_and_close_ups_count_as_images(embed: Post, clip: bytes, uri: Callable[..., str]) -> None:
    videos = [[video_part(clip, frames=9)], [video_part(clip, frames=8)]]
    region = {"image": uri(1), "region": {"box": BOX}}
    assert (await embed(input=[*videos, region])).status_code == 200
    answer = await embed(input=[*videos, region, region])
    refuses(answer, code="invalid_parameter", param="input", says="at most 20 images per request, but holds 21")


class TestPixels:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(max_request_pixels=64 * 48 * 10)

    async def test_frames_of_all_videos_are_counted_together(self, embed: Post, clip: bytes) -> None:
        assert (await embed(input=[[video_part(clip, frames=9)]])).status_code == 200
        answer = await embed(input=[[video_part(clip, frames=6)], [video_part(clip, frames=5)]])
        later = answer.json()["error"]["param"]  # that of the video which is decoded last
        assert later in ("input[0]", "input[1]")
        refuses(answer, code="image_too_large", param=later, says="30,720 pixels together")


class TestUrls:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(allow_url_media=True)

    async def test_a_video_is_fetched_where_urls_are_allowed(
        self, ask: Post, clip: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mllm_embed import sources

        async def fetch(url: str, *, max_bytes: int, **_: Any) -> bytes:
            assert (url, max_bytes) == ("https://example.org/a.mp4", 64 * 2**20)
            return clip

        monkeypatch.setattr(sources, "fetch", fetch)
        part = {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}
        by_url, sent = (await ask("/v1/embeddings", input=[[part], [video_part(clip)]]))["data"]
        assert by_url["embedding"] == sent["embedding"]
        assert by_url["frame_times"] == sent["frame_times"]
