"""Regions of pictures that are drawn here: what the model is shown of them, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed import regions
from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InputError, InvalidInput
from mllm_embed.media import MediaPolicy
from mllm_embed.types import EmbedInput, Image, Region, RunLengths, Text

pytestmark = pytest.mark.fast

LOCAL = MediaPolicy.local()
SIZE = (60, 40)
BOX = (10, 20, 30, 35)
RED = (255, 0, 0)


def picture(size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """A picture whose pixels differ: red says nothing, green and blue are column and row."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 1], pixels[..., 2] = np.arange(size[0]), np.arange(size[1])[:, None]
    return PIL.Image.fromarray(pixels)


def drawn_mask(box: tuple[int, int, int, int] = BOX, size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    mask = PIL.Image.new("L", size)
    mask.paste(255, box)
    return mask


def runs(mask: PIL.Image.Image) -> RunLengths:
    """Write a mask as COCO does: down the columns, the first run outside."""
    flat = [0, *(np.asarray(mask).T.ravel() > 0).astype(int).tolist()]
    changes = [place for place in range(1, len(flat)) if flat[place] != flat[place - 1]]
    return RunLengths((mask.height, mask.width), tuple(np.diff([1, *changes, len(flat)]).tolist()))


async def covered(region: Region, size: tuple[int, int] = SIZE) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return await regions.load_mask(region, size, LOCAL)


async def shown(region: Region) -> Sequence[Text | Image]:
    return regions.MarkedCrop().encode(picture(), region, await covered(region))


async def test_a_box_a_mask_and_its_runs_cover_the_same_pixels(tmp_path: Any) -> None:
    expected = np.asarray(drawn_mask()) > 0
    drawn_mask().save(tmp_path / "mask.png")
    for region in (
        Region(box=BOX),
        Region(box=(10.6, 20.9, 29.2, 34.1)),  # every pixel that the box touches
        Region(mask=drawn_mask()),
        Region(mask=tmp_path / "mask.png"),
        Region(mask=runs(drawn_mask())),
    ):
        np.testing.assert_array_equal(await covered(region), expected)


async def test_a_point_covers_a_disc_about_it() -> None:
    mask = await covered(Region(point=(30.5, 20.5)))
    assert regions.bounding_box(mask) == (20, 10, 41, 31)
    assert mask[20, 30]
    assert not mask[10, 20]
    corner = await covered(Region(point=(0, 39.9)))
    assert regions.bounding_box(corner) == (0, 30, 10, 40)


async def test_the_model_sees_the_context_marked_and_the_region_close_up() -> None:
    context, sentence, close_up = await shown(Region(box=BOX))
    assert isinstance(sentence, Text)
    assert "red outline" in sentence.text
    assert isinstance(context, Image)
    assert isinstance(context.source, PIL.Image.Image)
    before, after = np.asarray(picture()), np.asarray(context.source)
    changed = (before != after).any(axis=-1)
    frame = np.zeros_like(changed)
    frame[18:37, 8:32] = True
    frame[20:35, 10:30] = False  # what is inside is not painted over
    np.testing.assert_array_equal(changed, frame)
    assert {tuple(pixel) for pixel in after[changed].tolist()} == {RED}
    assert isinstance(close_up, Image)
    assert isinstance(close_up.source, PIL.Image.Image)
    assert close_up.source.size == (24, 19)  # a tenth of 20 pixels on every side
    assert close_up.source.getpixel((0, 0)) == (0, 8, 18)


async def test_the_outline_follows_a_mask() -> None:
    triangle = PIL.Image.fromarray(np.tril(np.full((40, 40), 255, dtype=np.uint8))).crop((0, 0, 60, 40))
    context, *_ = await shown(Region(mask=triangle))
    assert isinstance(context, Image)
    assert isinstance(context.source, PIL.Image.Image)
    assert [context.source.getpixel((x, 20)) == RED for x in (20, 21, 24, 25, 40)] == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("box", "size", "close_up"),
    [
        ((5, 5, 6, 6), (60, 40), (16, 16)),  # a pixel alone says nothing
        ((59, 39, 60, 40), (60, 40), (16, 16)),
        ((0, 0, 60, 40), (60, 40), (60, 40)),
        ((0, 10, 1000, 11), (1000, 30), (1000, 30)),  # not longer than models take it
        ((3, 1, 4, 2), (5, 4), (5, 4)),
    ],
)
async def test_a_close_up_has_sides_that_models_can_read(
    box: tuple[int, int, int, int], size: tuple[int, int], close_up: tuple[int, int]
) -> None:
    region = Region(box=box)
    *_, last = regions.MarkedCrop().encode(picture(size), region, await covered(region, size))
    assert isinstance(last, Image)
    assert isinstance(last.source, PIL.Image.Image)
    assert last.source.size == close_up


@pytest.mark.parametrize(
    ("region", "says"),
    [
        ({}, "must be one of point, box and mask, but is none"),
        ({"point": (1, 1), "box": BOX}, "but is point and box"),
        ({"point": (float("nan"), 1)}, "the point of a region must be 2 finite numbers"),
        ({"point": (10**400, 1)}, "the point of a region must be 2 finite numbers"),
        ({"point": (True, 1)}, "the point of a region must be 2 finite numbers"),
        ({"point": (1, 2, 3)}, "the point of a region must be 2 finite numbers"),
        ({"box": (1, 2, 3)}, "the box of a region must be 4 finite numbers"),
        ({"box": (0, 0, float("inf"), 1)}, "the box of a region must be 4 finite numbers"),
        ({"box": (5, 5, 5, 9)}, "must have left < right and top < bottom, but is 5, 5, 5, 9"),
        ({"box": (5, 9, 8, 5)}, "must have left < right and top < bottom, but is 5, 9, 8, 5"),
    ],
)
def test_what_is_no_region_is_refused(region: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Region(**region)


@pytest.mark.parametrize(
    ("size", "counts", "says"),
    [
        ((40, 60), (1,) * 100_001, "at most 100,000 runs, but has 100,001"),
        ((40, 60), (2399,), r"must add up to its 2,400 pixels \(60 x 40\), but add up to 2,399"),
        ((40, 60), (2401, -1), "must be integers from 0 to 999,999,999"),
        ((10, 999_999_999), (9_999_999_990,), "must be integers from 0 to 999,999,999"),
        ((40, 60), (2400.0,), "must be integers from 0 to 999,999,999"),
        ((2400,), (2400,), "must be integers from 0 to 999,999,999"),
    ],
)
def test_what_are_no_runs_is_refused(size: Any, counts: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        RunLengths(size, counts)


@pytest.mark.parametrize(
    ("region", "says"),
    [
        (Region(point=(60, 10)), "point of a region must lie within the picture of 60 x 40 pixels, but is 60, 10"),
        (Region(point=(-0.1, 10)), "must lie within the picture of 60 x 40 pixels"),
        (Region(box=(50, 30, 61, 40)), "box of a region must lie within the picture of 60 x 40 pixels, but is 50, 30"),
        (Region(box=(-5, 0, 5, 5)), "must lie within the picture of 60 x 40 pixels"),
        (
            Region(mask=drawn_mask(size=(61, 40))),
            "must fit its picture, 60 x 40: an image may have at most 2,400 pixels",
        ),
        (Region(mask=drawn_mask(size=(40, 60))), "the size of its picture, 60 x 40 pixels, but is 40 x 60"),
        (Region(mask=RunLengths((60, 40), (2400,))), "the size of its picture, 60 x 40 pixels, but is 40 x 60"),
        (Region(mask=RunLengths((10, 99_999_999), (999_999_990,))), "pixels, but is 99999999 x 10"),
        (Region(mask=RunLengths((40, 60), (2400,))), "the mask of the region is empty"),
        (Region(mask=PIL.Image.new("L", SIZE, 127)), "the mask of the region is empty"),
        (Region(mask=b"no picture"), "the image's format must be one of"),
        (Region(mask="nowhere.png"), "there is no image file 'nowhere.png'"),
    ],
)
async def test_what_is_not_in_the_picture_is_refused(fake: Embedder, region: Region, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        await fake.aembed([EmbedInput.of("fine"), EmbedInput.of(Image(picture(), region))])
    assert caught.value.index == 1


async def test_coordinates_are_those_of_the_upright_picture(fake: Embedder) -> None:
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the file lies on its side: to be seen, it is turned to the right
    picture().transpose(PIL.Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    lying, upright = (Image(source, Region(box=BOX)) for source in (buffer.getvalue(), picture()))
    one, two = await fake.aembed([EmbedInput.of(lying), EmbedInput.of(upright)])
    np.testing.assert_array_equal(one.vector, two.vector)


async def test_a_region_goes_through_the_prompt_like_any_content(fake: Embedder) -> None:
    region = Region(point=(20, 20))
    context, sentence, close_up = await shown(region)
    by_hand = EmbedInput.of("before", context, sentence, close_up, "after")
    whole, asked, other, hand = await fake.aembed(
        [
            EmbedInput.of("before", picture(), "after"),
            EmbedInput.of("before", Image(picture(), region), "after"),
            EmbedInput.of("before", Image(picture(), Region(point=(40, 20))), "after"),
            by_hand,
        ]
    )
    np.testing.assert_array_equal(asked.vector, hand.vector)
    assert asked.tokens == hand.tokens
    assert not np.array_equal(asked.vector, whole.vector)
    assert not np.array_equal(asked.vector, other.vector)


async def test_close_ups_count_as_pictures(fake: Embedder) -> None:
    image = Image(b"not looked at", Region(point=(0, 0)))
    with pytest.raises(InvalidInput, match="at most 16 images, close-ups of regions among them, but holds 18"):
        await fake.aembed([EmbedInput.of(*[image] * 9)])


class Segmenter:
    """A model that finds the thing under a point: here, what has the point's colour."""

    name = "by-colour"

    def encode(
        self, picture: PIL.Image.Image, region: Region, mask: np.ndarray[Any, np.dtype[np.bool_]]
    ) -> Sequence[Text | Image]:
        del mask
        assert region.point is not None
        x, y = map(int, region.point)
        pixels = np.asarray(picture)
        return regions.MarkedCrop().encode(picture, region, (pixels == pixels[y, x]).all(axis=-1))


async def test_a_segmentation_model_makes_a_point_the_thing_that_is_there() -> None:
    with fake_embedder() as plain:
        embedder = Embedder(plain.model_dir, plain.backend, region_encoder=Segmenter())
        image = PIL.Image.new("RGB", SIZE, "white")
        image.paste("blue", BOX)
        item = EmbedInput.of(Image(image, Region(point=(12, 22))))
        (thing,) = await embedder.aembed([item])
        (as_box, as_point) = await plain.aembed([EmbedInput.of(Image(image, Region(box=BOX))), item])
        np.testing.assert_array_equal(thing.vector, as_box.vector)
        assert not np.array_equal(thing.vector, as_point.vector)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"point": [1, 2.5]}, Region(point=(1, 2.5))),
        ({"box": [0, 0, 2, 2], "point": None}, Region(box=(0, 0, 2, 2))),
        ({"mask": "name"}, Region(mask="found name")),
        ({"mask": {"size": [1, 3], "counts": [1, 2]}}, Region(mask=RunLengths((1, 3), (1, 2)))),
    ],
)
def test_json(value: Any, expected: Region) -> None:
    assert regions.from_json(value, lambda name: f"found {name}") == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([0, 0, 1, 1], "must be an object with one of point, box and mask"),
        ({"rectangle": [0, 0, 1, 1]}, "must be an object with one of point, box and mask"),
        ({"box": "0, 0, 1, 1"}, "must be 4 finite numbers"),
        ({"point": [["1", 2], 3]}, "must be 2 finite numbers"),
        ({"mask": 3}, "must be a picture, or an object with size and counts"),
        ({"mask": {"size": [1, 3]}}, "two arrays of integers, size and counts"),
        ({"mask": {"size": [1, 3], "counts": "0f3"}}, "two arrays of integers, size and counts"),
        ({"mask": {"size": [1, 3], "counts": [[3]]}}, "must be integers"),
    ],
)
def test_json_that_is_no_region_is_refused(value: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        regions.from_json(value, str)


def test_a_region_that_nobody_looked_at_is_not_dropped_silently(fake: Embedder) -> None:
    renderer = fake._preparer._renderer
    with pytest.raises(InvalidInput, match="a region must become pictures or soft tokens before it is rendered"):
        renderer.render(EmbedInput.of(Image(picture(), Region(box=BOX))), "", [picture()])
