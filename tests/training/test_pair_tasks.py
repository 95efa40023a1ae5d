"""Pairs of a text and a picture: a picture keeps its key whatever words it goes with."""

import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed_training.augment import Pictures, Texts
from mllm_embed_training.build import choose_tasks
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.pair_tasks import pair_tasks
from mllm_embed_training.picture_tasks import PICTURE_TASKS
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
    write_rows(tmp_path, {name: [row] for name, row in tables.items()})
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))[task]()
    drawn = [made.draw(made.rows[0], random.Random(seed)) for seed in range(40)]
    assert {example.query.key for example in drawn} == words
    assert len({example.positive.key for example in drawn}) == 1


def test_names_in_other_languages_ask_for_the_english_one_and_are_asked_for_by_it(tmp_path: Path) -> None:
    names = {"en": "heart", "es": "corazón", "fr": "coeur", "ga": "Heart", "ta": "இதயம்" * 9}
    concept = {"concept_id": "heart", "label_en": "heart", "names": json.dumps(names)}
    write_rows(tmp_path, {"emoji_concepts": [concept]})
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))["emoji-languages"]()
    drawn = [made.draw(row, random.Random(seed)) for row in (made.rows[0], made.rows[1]) for seed in range(20)]
    found = {(example.query.key, example.positive.key) for example in drawn}
    assert found == {("corazón", "heart"), ("heart", "corazón"), ("coeur", "heart"), ("heart", "coeur")}


def test_english_texts_are_names_keywords_icons_descriptions_and_their_sentences_once_each(tmp_path: Path) -> None:
    tables: dict[str, dict[str, object]] = {
        "emoji_concepts": {"concept_id": "heart", "label_en": "heart", "tags_en": ["love", "like"]},
        "emoji_images-00": {"image_id": "noto:heart", "concept_id": "heart", "style": "noto", "image": png()},
        "icons": {"name": "home", "tags": ["house", "房子"], "image": png()},
        "openstax_figures-00": {"alt": "A cell. It has a wall.", "caption": "It has a wall.", "credit": ""},
        "story_images": {"image_sha": "1", "image": png()},
        "story_pages": {"sha": "1", "text_en": "a  dog", "texts": json.dumps({"es": "un perro"})},
    }
    write_rows(tmp_path, {name: [row] for name, row in tables.items()})
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))["english-texts"]()
    texts = [made.rows[place] for place in range(len(made.rows))]
    assert texts == [
        "heart",
        "home, house",
        "love, like",
        "A cell. It has a wall.",
        "It has a wall.",
        "a dog",
        "A cell.",
    ]
    assert made.draw("a dog", random.Random(0)).texts() == ["a dog", "a dog"]


def test_parts_of_a_text_are_stretches_of_it_in_any_language(tmp_path: Path) -> None:
    long = " ".join(str(number) for number in range(30))
    page: dict[str, object] = {"sha": "1", "text_en": "too short a text", "texts": json.dumps({"es": long})}
    figure: dict[str, object] = {"alt": long.replace("1", "x"), "caption": "too short", "credit": ""}
    tables: dict[str, dict[str, object]] = {
        "story_images": {"image_sha": "1", "image": png()},
        "story_pages": page,
        "openstax_figures-00": figure,
    }
    write_rows(tmp_path, {name: [row] for name, row in tables.items()})
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))["text-parts"]()
    assert sorted(made.rows[place] for place in range(len(made.rows))) == sorted([long, str(figure["alt"])])
    drawn = [made.draw(long, random.Random(seed)) for seed in range(50)]
    parts = [text for example in drawn for text in example.texts()]
    assert all(f" {part} " in f" {long} " and 3 <= len(part.split()) <= 20 for part in parts)
    assert any(parts[2 * place] != parts[2 * place + 1] for place in range(50))
    assert {part.split()[0] for part in parts} > {"0", "10", "20"}
    assert {len(part.split()) for part in parts} == set(range(3, 21))


@pytest.mark.parametrize(("task", "label"), [("emoji-group", "smileys"), ("emoji-subgroup", "cat face")])
def test_groups_and_subgroups_are_learned_apart(task: str, label: str, tmp_path: Path) -> None:
    concept = {"concept_id": "cat", "label_en": "cat", "group": "smileys", "subgroup": "cat-face", "tags_en": ["cat"]}
    image = {"image_id": "noto:cat", "concept_id": "cat", "style": "noto", "image": png()}
    write_rows(tmp_path, {"emoji_concepts": [concept], "emoji_images-00": [image]})
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))[task]()
    drawn = [made.draw(made.rows[0], random.Random(seed)) for seed in range(10)]
    assert {example.positive.key for example in drawn} == {label}


def test_the_negatives_of_an_edit_are_the_picture_and_another_tone_of_it(tmp_path: Path) -> None:
    tones: dict[str, list[str]] = {"wave": [], "light": ["light"], "dark": ["dark"]}
    concepts: list[dict[str, object]] = [
        {"concept_id": name, "base_id": "wave", "family_id": "wave", "gender": None, "skin_tones": found}
        for name, found in tones.items()
    ]
    images: list[dict[str, object]] = [
        {"image_id": name, "concept_id": name, "style": "noto", "image": png()} for name in tones
    ]
    write_rows(tmp_path, {"emoji_concepts": concepts, "emoji_images-00": images})
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))["emoji-edit"]()
    drawn = [made.draw(made.rows[place], random.Random(0)) for place in range(len(made.rows))]
    found = {(one.positive.key, *(negative.key for negative in one.negatives)) for one in drawn}
    assert found == {("light", "wave", "dark"), ("dark", "wave", "light")}


def write_rows(folder: Path, tables: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist([{**row, "split": "train"} for row in rows]), folder / f"{name}.parquet")


def test_pictures_of_a_kind_stand_alone_once_each_under_their_content(tmp_path: Path) -> None:
    tables: dict[str, list[dict[str, object]]] = {
        "openstax_figures-00": [{"alt": "A cell.", "image": png(), "credit": ""}],
        "photos": [{"image_id": "one", "image": png()}, {"image_id": "two", "image": png(), "license": "CC-BY-SA-4.0"}],
        "story_images": [{"image_sha": "1", "image": png()}],
        "story_pages": [{"sha": "1", "text_en": "a dog"}, {"sha": "1", "text_en": "it barks"}],
    }
    write_rows(tmp_path, tables)
    made = pair_tasks(Package(tmp_path), Pictures(0), Texts(0))
    for name in PICTURE_TASKS:
        task = made[name]()
        assert len(task.rows) == 1
        example = task.draw(task.rows[0], random.Random(0))
        assert example.query == example.positive
        assert example.query.key == hashlib.sha256(png()).hexdigest()
        assert not example.texts()


def test_a_recipe_says_how_many_sprites_are_drawn_in_ink(tmp_path: Path) -> None:
    stream = io.BytesIO()
    PIL.Image.new("RGBA", (32, 32), "orange").save(stream, "PNG")
    write_rows(tmp_path, {"icons": [{"name": "square", "tags": [], "image": stream.getvalue()}]})
    data = {"tasks": {"icon-t2i": 1}, "folder": str(tmp_path), "batch_size": 2, "group_size": 2, "augment": 0}
    recipe = {"stage": "contrastive", "run_dir": "runs/x", "model": {"path": "m"}, "optim": {"steps": 1, "lr": 1e-3}}
    shown = {}
    for ink in (None, 0, 1):
        config = TrainConfig.model_validate({**recipe, "data": {**data, "augment_ink": ink}})
        made = choose_tasks(config, tmp_path / "cache")[1]["icon-t2i"]
        (picture,) = made.draw(made.rows[0], random.Random(0)).positive.content
        shown[ink] = picture.source.getextrema()[0][0]  # least red: a rim is black, orange has all of it
    assert shown == {None: 255, 0: 255, 1: 0}
    half = TrainConfig.model_validate({**recipe, "data": {**data, "augment": 0.5}})
    assert half.data.ink == 0.15
