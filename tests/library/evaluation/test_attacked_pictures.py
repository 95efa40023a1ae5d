import hashlib

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from mllm_embed.evaluation.attacked_pictures import ATTACKS, blur, jpeg, noise, occlusion, printed_word, rotation
from mllm_embed.toy_shapes import scenes

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def picture() -> PIL.Image.Image:
    return next(scenes(1, 0, side=96)).image


def values(picture: PIL.Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture, dtype=np.float64)


def sharpness(picture: PIL.Image.Image) -> float:
    return float(np.abs(np.diff(values(picture), axis=1)).max())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_keeps_size_and_mode_and_the_original(name: str, picture: PIL.Image.Image) -> None:
    before = picture.tobytes()
    attacked = ATTACKS[name](picture, "seed")
    assert (attacked.size, attacked.mode) == (picture.size, "RGB")
    assert attacked.tobytes() == ATTACKS[name](picture, "seed").tobytes() != before
    assert picture.tobytes() == before


@pytest.mark.parametrize("name", ["noise", "occlusion"])
def test_another_seed_gives_another_picture(name: str, picture: PIL.Image.Image) -> None:
    assert ATTACKS[name](picture, "one").tobytes() != ATTACKS[name](picture, "other").tobytes()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("size", [(1, 1), (200, 3), (3, 200)])
def test_pictures_of_any_shape_are_attacked(name: str, size: tuple[int, int]) -> None:
    assert ATTACKS[name](PIL.Image.new("RGB", size, "teal"), "seed").size == size


def test_noise_is_the_same_on_every_machine() -> None:
    grey = PIL.Image.new("RGB", (64, 64), (128, 128, 128))
    changes = values(noise(grey, "seed")) - 128
    assert hashlib.sha256(noise(grey, "seed").tobytes()).hexdigest()[:8] == "1ac819ba"
    assert (changes.min(), changes.max()) == (-64, 63)
    assert abs(changes.mean()) < 1
    assert changes.std() == pytest.approx(64 / 3**0.5, rel=0.02)


def test_blur_softens_edges_and_keeps_colours(picture: PIL.Image.Image) -> None:
    assert sharpness(blur(picture, "")) < 0.5 * sharpness(picture)
    assert values(blur(picture, "")).mean() == pytest.approx(values(picture).mean(), abs=1)


def test_jpeg_is_so_strong_that_one_sees_it(picture: PIL.Image.Image) -> None:
    assert 2 < np.abs(values(jpeg(picture, "")) - values(picture)).mean() < 20


def test_a_quarter_is_hidden_and_the_rest_stays(picture: PIL.Image.Image) -> None:
    hidden = values(occlusion(picture, "seed"))
    changed = (hidden != values(picture)).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    box = hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert (box == 128).all()
    assert box.shape == (48, 48, 3)


def test_a_picture_is_turned_about_its_middle() -> None:
    clock = PIL.Image.new("RGB", (101, 101), "white")
    clock.paste("black", (48, 5, 53, 50))  # a hand at twelve
    turned = {seed: rotation(clock, seed) for seed in "abcdef"}
    ends = {round(float(np.argwhere(values(one).sum(axis=2)[8:16] < 100)[:, 1].mean())) for one in turned.values()}
    assert ends == {33, 67}


def test_words_are_printed_at_the_foot(picture: PIL.Image.Image) -> None:
    printed = values(printed_word(picture, "umbrella"))
    assert (printed[:73] == values(picture)[:73]).all()
    ink = np.asarray((printed[73:] < 100).all(axis=2))
    assert 0.05 < ink.mean() < 0.4
    assert not ink[:, [0, -1]].any()
    assert (printed[73:] == values(printed_word(picture, "umbrellas"))[73:]).mean() < 0.95


def test_of_long_texts_the_first_words_are_printed(picture: PIL.Image.Image) -> None:
    printed = printed_word(picture, "woman in lotus position: medium-dark skin tone")
    assert printed.tobytes() == printed_word(picture, "woman in lotus position: light skin tone").tobytes()
    assert printed.tobytes() != printed_word(picture, "man in lotus position: light skin tone").tobytes()
    assert (values(printed)[73:, [0, -1]] == 255).all()  # nothing runs over the edges
