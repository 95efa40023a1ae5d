"""Pairs of a text and a picture: a picture keeps its key whatever words it goes with."""

import io
import json
import random
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed_training.augment import Pictures, Texts
from mllm_embed_training.pair_tasks import pair_tasks
from mllm_embed_training.sources import Package

pytestmark = pytest.mark.fast


def png() -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("task", "words"), [("emoji-names", {"heart", "corazón", "coeur"}), ("story-pages", {"a dog", "un perro"})]
)
def test_a_picture_asked_for_in_two_languages_is_one_answer(task: str, words: set[str], tmp_path: Path) -> None:
    names = json.dumps({"en": "heart", "es": "corazón", "fr": "coeur"})
    concept: dict[str, object] = {
        "concept_id": "heart",
        "label_en": "heart",
        "group": "g",
        "tags_en": ["love"],
        "names": names,
    }
    page: dict[str, object] = {
        "image_id": "page-1",
        "sha": "1",
        "text_en": "a dog",
        "texts": json.dumps({"en": "a dog", "es": "un perro"}),
    }
    tables: dict[str, dict[str, object]] = {
        "emoji_concepts": concept,
        "emoji_images-00": {"image_id": "noto:heart", "concept_id": "heart", "style": "noto", "image": png()},
        "story_images": {"image_sha": "1", "image": png()},
        "story_pages": page,
    }
    for name, row in tables.items():
        pq.write_table(pa.Table.from_pylist([{**row, "split": "train"}]), tmp_path / f"{name}.parquet")
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))[task]()
    drawn = [made.draw(made.rows[0], random.Random(seed)) for seed in range(40)]
    assert {example.query.key for example in drawn} == words
    assert len({example.positive.key for example in drawn}) == 1
