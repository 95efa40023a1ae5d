"""OpenAI's files and batches through its own package, on the real engine: docs/serving.md's block, and pictures."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openai
import PIL.Image
import pytest
from openai import OpenAI
from openai.types import Batch

from mllm_embed.model_dir import ModelDir
from tests.conformance.conftest import KEY

pytestmark = pytest.mark.engine

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def finished(client: OpenAI, batch: Batch) -> Batch:
    while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def test_the_pages_block_runs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    here = block.replace("http://127.0.0.1:8000", url).replace('"none"', f'"{KEY}"')
    exec(compile(here, PAGE.name, "exec"), {})  # noqa: S102  # our own page
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in printed] == ["0", "1"]


def test_pictures_give_the_vectors_of_the_route(
    client: OpenAI, model_dir: ModelDir, draw: Callable[..., PIL.Image.Image]
) -> None:
    buffer = io.BytesIO()
    draw(7).save(buffer, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    items: list[Any] = [{"image": picture}, {"image": picture, "text": "at night"}, "cat"]
    lines = [
        {
            "custom_id": f"item {number}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": model_dir.recipe.name, "input": [item]},
        }
        for number, item in enumerate([*items, ""])
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("work.jsonl", content), purpose="batch")
    assert client.files.retrieve(file.id).bytes == len(content)
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", metadata={"job": "test"}
    )
    batch = finished(client, batch)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (4, 3, 1)
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    rows = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    direct = client.embeddings.create(model=model_dir.recipe.name, input=items)
    for number, row in enumerate(rows):
        assert row["custom_id"] == f"item {number}"
        vector = row["response"]["body"]["data"][0]["embedding"]
        np.testing.assert_allclose(vector, direct.data[number].embedding, atol=1e-5)
    (error,) = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert error["response"]["body"]["error"]["code"] == "invalid_input"
    assert batch.id in {listed.id for listed in client.batches.list(limit=1)}
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_a_batch_can_be_cancelled(client: OpenAI, model_dir: ModelDir) -> None:
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": model_dir.recipe.name, "input": [f"cat {number} {item}" for item in range(20)]},
        }
        for number in range(400)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("work.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    client.batches.cancel(batch.id)
    batch = finished(client, batch)
    assert batch.status == "cancelled"
    assert batch.request_counts is not None
    assert batch.request_counts.completed < 400
