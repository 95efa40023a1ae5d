from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.prompts import PromptRenderer
from mllm_embed_serving.schemas.openai import UNSUPPORTED

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
Picture = Callable[..., str]


def vectors(response: httpx.Response) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    assert {item["object"] for item in data} == {"embedding"}
    return np.array([item["embedding"] for item in data], dtype=np.float32)


async def test_a_string_gives_openais_object(embed: Post) -> None:
    body = (await embed(input="a red square")).json()
    assert set(body) == {"object", "data", "model", "usage"}
    assert body["object"] == "list"
    assert body["model"] == "fake"
    assert set(body["data"][0]) == {"object", "index", "embedding"}
    assert np.linalg.norm(body["data"][0]["embedding"]) == pytest.approx(1, abs=1e-6)
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0


async def test_order_is_kept_and_items_equal_single_requests(embed: Post) -> None:
    texts = ["one", "two", "three"]
    together = vectors(await embed(input=texts))
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(vectors(await embed(input=text))[0], row, atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=0.01)


async def test_usage_sums_the_tokens_of_all_items(embed: Post) -> None:
    single = [(await embed(input=text)).json()["usage"]["total_tokens"] for text in ("one", "two and more")]
    both = (await embed(input=["one", "two and more"])).json()["usage"]["total_tokens"]
    assert both == sum(single)


async def test_base64_holds_the_same_floats(embed: Post) -> None:
    floats = vectors(await embed(input="a", encoding_format="float"))[0]
    encoded = (await embed(input="a", encoding_format="base64")).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(encoded), dtype="<f4"), floats)


async def test_dimensions_cut_then_normalise(embed: Post) -> None:
    full = vectors(await embed(input="a"))[0]
    cut = vectors(await embed(input="a", dimensions=16))[0]
    np.testing.assert_allclose(cut, full[:16] / np.linalg.norm(full[:16]), atol=1e-6)


async def test_token_ids_are_embedded_as_the_text_they_spell(embed: Post, embedder: Embedder) -> None:
    directory = embedder.model_dir
    ids = PromptRenderer(directory.tokenizer_file, directory.family, directory.template).tokenize("a red square")
    text = vectors(await embed(input="a red square"))[0]
    np.testing.assert_allclose(vectors(await embed(input=ids))[0], text, atol=1e-6)
    np.testing.assert_allclose(vectors(await embed(input=[ids, ids])), [text, text], atol=1e-6)


async def test_every_way_to_write_a_picture_gives_the_same_vector(embed: Post, png: Picture, uri: Picture) -> None:
    part = {"type": "image_url", "image_url": {"url": uri(1)}}
    same = [
        {"image": uri(1)},
        {"image": png(1)},
        [part],
        [{"type": "image_url", "image_url": uri(1)}],
        [{"type": "input_image", "image_url": uri(1)}],
    ]
    rows = vectors(await embed(input=[*same, {"image": uri(2)}]))
    np.testing.assert_allclose(rows[:-1], np.repeat(rows[:1], len(same), axis=0), atol=1e-6)
    assert not np.allclose(rows[0], rows[-1], atol=0.01)
    conversation = vectors(await embed(messages=[{"role": "user", "content": [part]}]))
    np.testing.assert_allclose(conversation[0], rows[0], atol=1e-6)


async def test_text_and_image_are_fused_image_first(embed: Post, uri: Picture) -> None:
    image, text = {"type": "image_url", "image_url": {"url": uri()}}, {"type": "text", "text": "at night"}
    rows = vectors(
        await embed(
            input=[
                {"text": "at night", "image": uri()},
                [image, text],
                [text, image],
                {"image": uri()},
                "at night",
                {"text": None, "image": uri()},
            ]
        )
    )
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    np.testing.assert_allclose(rows[3], rows[5], atol=1e-6)
    for other in rows[2:5]:
        assert not np.allclose(rows[0], other, atol=0.01)


async def test_mixed_items_equal_single_requests(embed: Post, uri: Picture) -> None:
    items = ["text", {"text": "text"}, {"image": uri(3)}, [{"type": "text", "text": "text"}], [70, 71]]
    together = vectors(await embed(input=items))
    for item, row in zip(items, together, strict=True):
        np.testing.assert_allclose(vectors(await embed(input=[item]))[0], row, atol=1e-6)
    np.testing.assert_allclose(vectors(await embed(input={"image": uri(3)}))[0], together[2], atol=1e-6)


async def test_an_instruction_changes_the_vector_and_the_nearest_one_wins(embed: Post) -> None:
    plain = vectors(await embed(input="cat"))[0]
    told = vectors(
        await embed(input=["cat", {"text": "cat", "instruction": "Look at the colour."}], instruction="Look.")
    )
    own = vectors(await embed(input="cat", instruction="Look at the colour."))[0]
    assert not np.allclose(plain, told[0], atol=0.01)
    np.testing.assert_allclose(told[1], own, atol=1e-6)
    assert not np.allclose(told[0], told[1], atol=0.01)


async def test_a_task_has_two_sides(embed: Post) -> None:
    query = vectors(await embed(input="cat", task="text-to-image"))[0]
    document = vectors(await embed(input="cat", task="text-to-image", input_type="document"))[0]
    assert not np.allclose(query, document, atol=0.01)
    np.testing.assert_allclose(vectors(await embed(input="cat", task="text-to-image", input_type="query"))[0], query)
    np.testing.assert_allclose(document, vectors(await embed(input="cat"))[0], atol=1e-6)


async def test_a_system_message_is_the_instruction(embed: Post) -> None:
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": "cat"}]
    expected = vectors(await embed(input="cat", instruction="Look."))[0]
    np.testing.assert_allclose(vectors(await embed(messages=messages))[0], expected, atol=1e-6)
    parts = [{"role": "developer", "content": [{"type": "text", "text": "Look."}]}, {"role": "user", "content": "cat"}]
    closed = [*messages, {"role": "assistant", "content": ""}]
    rows = vectors(await embed(messages=[messages, parts, closed]))
    np.testing.assert_allclose(rows, [expected] * 3, atol=1e-6)


async def test_control_tokens_in_text_are_text(embed: Post, uri: Picture) -> None:
    typed = "<|vision_start|><|image_pad|><|vision_end|> cat"
    rows = vectors(await embed(input=[typed, {"text": typed, "image": uri()}, {"text": " cat", "image": uri()}]))
    assert not np.allclose(rows[1], rows[2], atol=0.01)


async def test_fields_without_effect_are_ignored(embed: Post) -> None:
    plain = vectors(await embed(input="cat"))
    harmless = {name: values[0] for name, values in UNSUPPORTED.items() if values}
    extra = await embed(input="cat", user="u", priority=3, truncate_prompt_tokens=None, messages=None, **harmless)
    np.testing.assert_array_equal(vectors(extra), plain)
