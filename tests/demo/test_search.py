from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mllm_embed.errors import InvalidInput, MllmEmbedError
from mllm_embed_demo import search as module
from mllm_embed_demo.client import ApiRefused, EmbeddingsClient
from mllm_embed_demo.pictures import Payload, Picture
from mllm_embed_demo.search import Playground, Query, automatic_task

pytestmark = pytest.mark.fast


def test_a_picture_finds_itself(playground: Playground, pictures: list[Picture]) -> None:
    payload = pictures[3].payload()
    result = playground.search(Query(picture=payload, instruction="Find it."))
    assert result.hits[0].picture == pictures[3]
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
    assert len(result.hits) == len(pictures)
    assert result.milliseconds > 0
    assert np.linalg.norm(result.vector) == pytest.approx(1, abs=1e-5)


def test_text_picture_instruction_and_width_all_count(playground: Playground, pictures: list[Picture]) -> None:
    payload = pictures[0].payload()
    queries = [
        Query(text="a", instruction="i"),
        Query(text="b", instruction="i"),
        Query(text="a", instruction="j"),
        Query(text="a", picture=payload, instruction="i"),
        Query(text="a", instruction="i", dimensions=16),
    ]
    scores = [{hit.picture.key: round(hit.score, 4) for hit in playground.search(query).hits} for query in queries]
    assert all(one != other for place, one in enumerate(scores) for other in scores[:place])


def test_the_words_of_a_query_are_those_under_its_instruction(playground: Playground) -> None:
    plain, told = (playground.words(Query(text="a cat", instruction=text)) for text in ("", "zzzzzz"))
    assert 0 < len(plain) <= module.WORDS
    assert "z" in told
    assert "z" not in plain


def test_a_model_without_words_is_no_fault(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ApiRefused("it gives no words", 400)

    monkeypatch.setattr(playground.client, "words", refuse)
    assert playground.words(Query(text="a cat", instruction="")) == {}


def test_an_empty_query_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Nothing to search for"):
        Query(instruction="Find it.")


@pytest.mark.parametrize(
    ("text", "picture", "task"),
    [(True, False, "text-to-image"), (False, True, "image-to-image"), (True, True, "composed")],
)
def test_the_automatic_task_fits_the_query(text: bool, picture: bool, task: str) -> None:
    assert automatic_task(text=text, picture=picture).name == task


def test_another_model_behind_the_api_is_noticed(pictures: list[Picture], tmp_path: Path) -> None:
    served = {"id": "m", "fingerprint": "one"}
    embedded: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=served if request.url.path.endswith("/m") else {"data": [served]})
        body: Any = json.loads(request.content)
        embedded.append(len(body["input"]))
        rows = [{"index": index, "embedding": [1.0, index]} for index in range(len(body["input"]))]
        return httpx.Response(200, json={"data": rows})

    with EmbeddingsClient("http://api", transport=httpx.MockTransport(answer)) as client:
        playground = Playground(client, pictures, tmp_path / "v")
        query = Query(text="a", instruction="i")
        playground.search(query)
        playground.search(query)
        assert embedded == [5, 1, 1]
        served["fingerprint"] = "two"
        playground.search(query)
        assert embedded == [5, 1, 1, 5, 1]
        assert playground.embedded == (5, 5)


def test_a_gallery_that_cannot_be_embedded_is_one_sentence(playground: Playground, pictures: list[Picture]) -> None:
    for picture in pictures:
        picture.path.write_bytes(b"no picture")
    with pytest.raises(MllmEmbedError, match=r"no picture of the gallery could be embedded: picture-0\.png"):
        playground.search(Query(text="a", instruction="i"))


def test_pictures_are_found_by_key_and_by_name(playground: Playground, pictures: list[Picture]) -> None:
    assert playground.payload(pictures[0].key) == pictures[0].payload()
    assert playground.payload("none") is None
    assert playground.thumbnail("none") is None
    assert playground.find("picture-1.png") == pictures[1]
    assert playground.find("none.png") is None


def test_recent_uploads_are_kept_and_old_ones_dropped(
    playground: Playground, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_UPLOADS", 2)
    uploads = [Payload(f"{number}".encode(), "image/png") for number in range(3)]
    for upload in uploads:
        playground._remember(upload)
    assert [playground.payload(upload.key) for upload in uploads] == [None, *uploads[1:]]
