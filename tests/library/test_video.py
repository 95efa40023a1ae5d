"""Videos that are drawn here: which frames are used, in how much memory, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed import video
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InputError, InvalidInput, InvalidMedia, MediaNotAllowed, MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.types import EmbedInput, Image, Video

pytestmark = pytest.mark.fast

LOCAL = MediaPolicy.local()
RATE = 10


BITS = 8


def picture(number: int, size: tuple[int, int] = (64, 48)) -> PIL.Image.Image:
    """A frame that carries its number as white and black bars."""
    image = PIL.Image.new("RGB", size)
    for bit in range(BITS):
        if number >> bit & 1:
            image.paste("white", (bit * size[0] // BITS, 0, (bit + 1) * size[0] // BITS, size[1]))
    return image


def film(frames: int = 50, size: tuple[int, int] = (64, 48), name: str = "mp4", keys: int = 12) -> bytes:
    """A video of `frames` numbered frames, `RATE` a second, with a key frame every `keys`."""
    import av

    buffer = io.BytesIO()
    new_frame: Any = av.VideoFrame.from_image
    with av.open(buffer, "w", format={"mp4": "mp4", "mkv": "matroska", "avi": "avi"}[name]) as container:
        track: Any = container.add_stream("mpeg4", rate=RATE)
        track.width, track.height, track.pix_fmt, track.codec_context.gop_size = *size, "yuv420p", keys
        for number in range(frames):
            for packet in track.encode(new_frame(picture(number, size))):
                container.mux(packet)
        for packet in track.encode():
            container.mux(packet)
    return buffer.getvalue()


def animation(frames: int, kind: str, **options: Any) -> bytes:
    pictures = [picture(number) for number in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], **options)
    return buffer.getvalue()


def numbers(clip: video.Clip) -> list[int]:
    """Which frames these are, read from their bars."""
    bars = [
        np.asarray(frame.convert("L").resize((BITS, 1), PIL.Image.Resampling.BOX))[0] > 127 for frame in clip.frames
    ]
    return [sum(int(white) << bit for bit, white in enumerate(bar)) for bar in bars]


async def load(source: Any, policy: MediaPolicy = LOCAL, **sampling: Any) -> video.Clip:
    return await video.load(Video(source, **sampling), policy)


@pytest.mark.parametrize("name", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("keys", [1, 12, 100])
async def test_frames_are_spread_evenly_from_first_to_last(name: str, keys: int) -> None:
    clip = await load(film(name=name, keys=keys), frames=8)
    assert numbers(clip) == [0, 7, 14, 21, 28, 35, 42, 49]
    assert clip.times == pytest.approx([0.0, 0.7, 1.4, 2.1, 2.8, 3.5, 4.2, 4.9], abs=1e-3)
    assert {frame.size for frame in clip.frames} == {(64, 48)}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"frames": 1}, [0]),
        ({"frames": 2}, [0, 49]),
        ({"frames": 99}, list(range(50))),
        ({"fps": 1.0}, [0, 10, 20, 30, 40]),
        ({"fps": 1.0, "frames": 3}, [0, 20, 40]),
        ({"fps": 0.5, "frames": 16}, [0, 20, 40]),
        ({"fps": 1000.0, "frames": 3}, [0, 24, 49]),
    ],
)
async def test_sampling(sampling: dict[str, Any], expected: list[int]) -> None:
    assert numbers(await load(film(), **sampling)) == expected


def test_frames_of_uneven_times_are_chosen_by_their_times() -> None:
    times = [0.0, 0.1, 0.2, 3.0, 3.1]
    assert video.choose(times, Video(b"", fps=1.0)) == [0, 2, 3]


async def test_a_path_and_a_data_uri_give_the_same_frames(tmp_path: Path) -> None:
    import base64

    data = film(20)
    (tmp_path / "film.mp4").write_bytes(data)
    uri = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    clips = [await load(source, frames=3) for source in (data, tmp_path / "film.mp4", str(tmp_path / "film.mp4"), uri)]
    assert all(clip == clips[0] for clip in clips)


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {"duration": 200}), ("WebP", {"duration": 200, "lossless": True})]
)
async def test_animations_are_videos(kind: str, options: dict[str, Any]) -> None:
    clip = await load(animation(11, kind, **options), frames=3)
    assert numbers(clip) == [0, 5, 10]
    assert clip.times == pytest.approx([0.0, 1.0, 2.0])
    assert numbers(await load(animation(1, kind))) == [0]


async def test_given_frames_are_used_as_they_are() -> None:
    pictures = tuple(map(picture, range(9)))
    clip = await load(pictures, frames=3)
    assert (numbers(clip), clip.times) == ([0, 4, 8], (0.0, 4.0, 8.0))
    known = await load(pictures, frames=3, times=tuple(number / 2 for number in range(9)))
    assert (numbers(known), known.times) == ([0, 4, 8], (0.0, 2.0, 4.0))


@pytest.mark.parametrize("source", [b"film", (picture(0), picture(1))])
def test_times_are_for_frames_that_are_given(source: Any) -> None:
    with pytest.raises(InvalidInput, match="times of a video are for frames that are given, one for each"):
        Video(source, times=(0.0,))


async def test_large_frames_are_shrunk_while_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_FRAME_PIXELS", 32 * 24)
    assert {frame.size for frame in (await load(film(5))).frames} == {(32, 24)}
    assert {frame.size for frame in (await load(animation(3, "GIF"))).frames} == {(32, 24)}


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_a_film_turned_while_it_was_shot_is_shown_upright(rotation: int) -> None:
    class Frame:
        width, height = 40, 20

        def __init__(self) -> None:
            self.rotation = rotation

        def to_image(self, width: int, height: int) -> PIL.Image.Image:
            image = PIL.Image.new("RGB", (width, height))
            image.putpixel((0, 0), (255, 0, 0))
            return image

    corner = {0: (0, 0), 90: (0, 39), -90: (19, 0), 180: (39, 19)}[rotation]
    assert video._picture(Frame()).getpixel(corner) == (255, 0, 0)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"no film at all, but some text" * 9, "truncated, corrupt or of an unsupported format"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "truncated, corrupt or of an unsupported format"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "truncated, corrupt or of an unsupported format"),
        (b"GIF89a", "animation is truncated or corrupt"),
        (b"RIFF\x04\x00\x00\x00WEBP", "animation is truncated or corrupt"),
        ((), "must be PIL images, at least one"),
        (("x",), "must be PIL images, at least one"),
        ("nowhere.mp4", "there is no video file 'nowhere.mp4'"),
    ],
)
async def test_what_is_no_video_is_refused(source: Any, says: str) -> None:
    with pytest.raises(InvalidMedia, match=says) as caught:
        await load(source)
    assert len(str(caught.value).splitlines()) == 1


async def test_half_a_file_is_refused_or_shortened() -> None:
    whole = film(50, name="mkv")
    clip = await load(whole[: len(whole) // 2])
    assert numbers(clip)[-1] < 49
    with pytest.raises(InvalidMedia, match="truncated, corrupt"):
        await load(film(50, name="mp4")[:400])


async def test_sound_alone_is_no_video() -> None:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        track: Any = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in [*track.encode(frame), *track.encode()]:
            container.mux(packet)
    with pytest.raises(InvalidMedia, match="the file holds no video"):
        await load(buffer.getvalue())


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_video_seconds": 3.0}, "may last at most 3 seconds"),
        ({"max_video_bytes": 100}, "a video may have at most 100 bytes"),
        ({"max_pixels": 1000}, r"a frame of a video may have at most 1,000 pixels, but has 3,072 \(64 x 48\)"),
        ({"max_video_decode_s": 0.0}, "the video takes too long to decode"),
    ],
)
async def test_limits(limits: dict[str, Any], says: str) -> None:
    with pytest.raises(MediaTooLarge, match=says):
        await load(film(), replace(LOCAL, **limits))


async def test_an_endless_animation_is_refused() -> None:
    data = animation(20, "GIF", duration=200)
    with pytest.raises(MediaTooLarge, match="may last at most 1 seconds"):
        await load(data, replace(LOCAL, max_video_seconds=1.0))
    with pytest.raises(MediaTooLarge, match="the video takes too long to decode"):
        await load(data, replace(LOCAL, max_video_decode_s=0.0))


async def test_8k_is_shrunk_or_refused() -> None:
    data = film(1, size=(7680, 4320))
    (frame,) = (await load(data)).frames
    assert frame.size == (1920, 1080)
    with pytest.raises(MediaTooLarge, match=r"at most 30,000,000 pixels, but has 33,177,600 \(7680 x 4320\)"):
        await load(data, replace(LOCAL, max_pixels=30_000_000))


async def test_strangers_name_no_files_and_no_urls() -> None:
    for source in ("/etc/hostname", Path("/etc/hostname"), "https://example.org/film.mp4", "ftp://example.org/film"):
        with pytest.raises(MediaNotAllowed):
            await load(source, MediaPolicy.server())


@pytest.mark.parametrize("sampling", [{"frames": 0}, {"fps": 0.0}, {"fps": float("nan")}])
def test_impossible_sampling_is_refused(sampling: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="of a video must be"):
        Video(b"", **sampling)


async def test_a_video_is_embedded_as_its_frames_and_says_which(fake: Embedder) -> None:
    data = film(50)
    clip = await load(data, frames=4)
    as_video, as_pictures = await fake.aembed(
        [
            EmbedInput.of("before", Video(data, frames=4), "after"),
            EmbedInput.of("before", *map(Image, clip.frames), "after"),
        ]
    )
    np.testing.assert_array_equal(as_video.vector, as_pictures.vector)
    assert as_video.frame_times == (clip.times,)
    assert as_pictures.frame_times == ()
    assert as_video.tokens == as_pictures.tokens
    assert as_video.pixels == 4 * 64 * 48


async def test_a_model_may_read_the_time_of_each_frame(fake: Embedder) -> None:
    clip = await load(film(50), frames=3)
    timed = [part for seconds, frame in zip(clip.times, clip.frames, strict=True) for part in (seconds, frame)]
    written = [f"<{part:.1f} seconds>" if isinstance(part, float) else part for part in timed]
    assert written[::2] == ["<0.0 seconds>", "<2.4 seconds>", "<4.9 seconds>"]
    with Embedder(fake.model_dir.with_recipe(video="timed-frames"), fake.backend) as reader:
        assert reader.model_dir.recipe.to_json() != fake.model_dir.recipe.to_json()
        as_video, as_content = await reader.aembed(
            [EmbedInput.of("before", Video(film(50), frames=3), "after"), EmbedInput.of("before", *written, "after")]
        )
        np.testing.assert_array_equal(as_video.vector, as_content.vector)
        assert as_video.frame_times == (clip.times,)
        picture, plain = [(await each.aembed([EmbedInput.of(clip.frames[0])]))[0] for each in (reader, fake)]
        np.testing.assert_array_equal(picture.vector, plain.vector)


async def test_more_frames_than_an_input_may_hold_are_refused_before_decoding(fake: Embedder) -> None:
    with pytest.raises(InputError, match="at most 16 images, frames of videos among them, but holds 17") as caught:
        await fake.aembed([EmbedInput.of("x"), EmbedInput.of(Video(b"not looked at", frames=16), Image(b""))])
    assert caught.value.index == 1
