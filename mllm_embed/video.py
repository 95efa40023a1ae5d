"""A video -> the few frames that are embedded, in bounded memory.

The container is read twice: once without decoding, which gives the time of every frame, and once for the wanted
frames, jumping from key frame to key frame. Animated GIF and WebP are read by Pillow.
"""

from __future__ import annotations

import bisect
import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
from PIL import GifImagePlugin, WebPImagePlugin

from mllm_embed import media
from mllm_embed.errors import InvalidMedia, MediaNotAllowed, MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.sources import Kind, fetched, is_url, locate
from mllm_embed.types import Image, Text

if TYPE_CHECKING:
    from mllm_embed.types import Video

_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf"
"""Demultiplexers that may open a file: none that goes on to open other files, as playlists do."""
_FRAME_PIXELS = 1920 * 1080
"""Larger frames are shrunk to this area while they are decoded; no model reads more of a frame."""
_MOST_FRAMES_PER_SECOND = 240


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a video that are used.

    Attributes:
        frames: pictures in mode RGB, upright.
        times: seconds of each frame from the beginning of the video.
    """

    frames: tuple[PIL.Image.Image, ...]
    times: tuple[float, ...]

    def content(self, *, timed: bool) -> list[Text | Image]:
        """Return what stands in the prompt: the frames, each behind its second (as Qwen3-VL writes it) if `timed`."""
        content: list[Text | Image] = []
        for frame, seconds in zip(self.frames, self.times, strict=True):
            content += [Text(f"<{seconds:.1f} seconds>"), Image(frame)] if timed else [Image(frame)]
        return content


async def load(video: Video, policy: MediaPolicy) -> Clip:
    """Fetch a video and decode the frames that it asks for, without holding up the event loop.

    Args:
        video: source and sampling.
        policy: what is allowed.

    Raises:
        MediaNotAllowed: the policy refuses the source.
        MediaTooLarge: more bytes, seconds or pixels than the policy allows.
        MediaFetchError: the URL did not deliver.
        InvalidMedia: no such file, no video in it, unsupported format, or corrupt data.
    """
    if isinstance(video.source, tuple):
        return await media.in_decoder(_given, video.source, video, policy)
    source = await fetched(video.source, policy, kind(policy))
    return await media.in_decoder(_decode, source, video, policy)


def load_sync(video: Video, policy: MediaPolicy) -> Clip:
    """Decode a video in this thread; like `load`, but without URLs.

    Raises:
        MediaNotAllowed: the policy refuses the source, or it is a URL.
        MediaTooLarge: more bytes, seconds or pixels than the policy allows.
        InvalidMedia: no such file, no video in it, unsupported format, or corrupt data.
    """
    if isinstance(video.source, tuple):
        return _given(video.source, video, policy)
    if is_url(video.source):
        raise MediaNotAllowed("video URLs are not fetched here: download the video first")
    return _decode(video.source, video, policy)


def choose(times: Sequence[float], video: Video) -> list[int]:
    """Return which frames are used: ascending, each once.

    Args:
        times: seconds of all frames, ascending.
        video: its sampling.
    """
    if video.fps is None:
        return _spread(range(len(times)), video.frames)
    steps = math.floor((times[-1] - times[0]) * video.fps + 1e-6) + 1
    wanted = (times[0] + step / video.fps for step in range(steps))
    return _spread(sorted({bisect.bisect_right(times, time + 1e-6) - 1 for time in wanted}), video.frames)


def _spread(candidates: Sequence[int], count: int) -> list[int]:
    """Thin a list out evenly, its first and last elements kept."""
    if len(candidates) <= count:
        return list(candidates)
    if count == 1:
        return [candidates[0]]
    return [candidates[round(i * (len(candidates) - 1) / (count - 1))] for i in range(count)]


def kind(policy: MediaPolicy) -> Kind:
    """Return what a video is called in messages, and how many bytes it may have."""
    return Kind("a", "video", "video/mp4", policy.max_video_bytes)


def _given(frames: Sequence[object], video: Video, policy: MediaPolicy) -> Clip:
    """Use frames that the caller has; unless he says when they are, their numbers are their times."""
    pictures = [frame for frame in frames if isinstance(frame, PIL.Image.Image)]
    if not pictures or len(pictures) < len(frames):
        raise InvalidMedia("the frames of a video must be PIL images, at least one")
    times = video.times if video.times is not None else tuple(map(float, range(len(pictures))))
    chosen = _spread(range(len(pictures)), video.frames)
    return Clip(tuple(media.decode(pictures[i], policy) for i in chosen), tuple(times[i] for i in chosen))


def _decode(source: bytes | str | Path, video: Video, policy: MediaPolicy) -> Clip:
    found = locate(source, policy, kind(policy))
    with found.open("rb") if isinstance(found, Path) else io.BytesIO(found) as stream:
        head = stream.read(16)
        stream.seek(0)
        if not head:
            raise InvalidMedia("the video is empty (0 bytes)")
        if head[:4] == b"GIF8" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
            return _animation(stream, video, policy)
        return _film(stream, video, policy)


def _animation(stream: Any, video: Video, policy: MediaPolicy) -> Clip:
    """Decode an animated GIF or WebP; its frames have durations of their own."""
    reader = GifImagePlugin.GifImageFile if stream.read(3) == b"GIF" else WebPImagePlugin.WebPImageFile
    stream.seek(0)
    deadline = time.monotonic() + policy.max_video_decode_s
    try:
        with reader(stream) as image:
            times, now = [], 0.0
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()  # only now a WebP knows how long its frame lasts
                times.append(now)
                now += max(float(image.info.get("duration", 100)), 10.0) / 1000
                _check_length(now, policy)
                _check_time(deadline)
            chosen = choose(times, video)
            frames = []
            for number in chosen:
                image.seek(number)
                frames.append(_shrunk(media.decode(image.copy(), policy)))
    except (InvalidMedia, MediaTooLarge):
        raise
    except Exception as error:  # noqa: BLE001 - on hostile bytes the readers raise almost anything
        raise InvalidMedia(f"the animation is truncated or corrupt: {error}") from None
    return Clip(tuple(frames), tuple(times[i] for i in chosen))


def _film(stream: Any, video: Video, policy: MediaPolicy) -> Clip:
    """Decode the wanted frames of a container with a video stream."""
    import av

    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    try:
        with av.open(stream, options=options) as container:
            if not container.streams.video:
                raise InvalidMedia("the file holds no video")
            track = container.streams.video[0]
            _check_size(track.codec_context.width, track.codec_context.height, policy)
            stamps, keys = _stamps(container, track, policy)
            base = float(track.time_base)
            times = [(stamp - stamps[0]) * base for stamp in stamps]
            chosen = choose(times, video)
            deadline = time.monotonic() + policy.max_video_decode_s
            frames = tuple(_frames(container, track, [stamps[i] for i in chosen], keys, deadline))
    except (InvalidMedia, MediaTooLarge):
        raise
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise InvalidMedia(f"the video is truncated, corrupt or of an unsupported format: {error}") from None
    return Clip(frames, tuple(times[i] for i in chosen))


def _stamps(container: Any, track: Any, policy: MediaPolicy) -> tuple[list[int], list[int]]:
    """Return the presentation times of all frames and of the key frames, ascending, without decoding any."""
    stamps: list[int] = []
    keys: list[int] = []
    most = policy.max_video_seconds * _MOST_FRAMES_PER_SECOND
    for packet in container.demux(track):
        if packet.pts is None:
            continue
        stamps.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
        _check_length((packet.pts - stamps[0]) * float(track.time_base), policy)
        if len(stamps) > most:
            raise MediaTooLarge(f"a video may have at most {most:,.0f} frames")
    if not stamps:
        raise InvalidMedia("the video has no frames")
    return sorted(set(stamps)), sorted(keys)


def _frames(
    container: Any, track: Any, wanted: Sequence[int], keys: Sequence[int], deadline: float
) -> Iterator[PIL.Image.Image]:
    """Decode the frames at the wanted times, ascending."""
    track.thread_type = "AUTO"
    decoded: Iterator[Any] = iter(())
    position = -math.inf
    last: Any = None
    for stamp in wanted:
        key = keys[bisect.bisect_right(keys, stamp) - 1] if keys and keys[0] <= stamp else None
        if last is None or (key is not None and key > position):
            container.seek(key if key is not None else stamp, stream=track, backward=True)
            decoded = container.decode(track)
        while last is None or position < stamp:
            frame = next(decoded, None)
            if frame is None:
                break
            _check_time(deadline)
            if frame.pts is not None:
                last, position = frame, frame.pts
        if last is None:
            raise InvalidMedia("the video has no frame that can be decoded")
        yield _picture(last)


def _picture(frame: Any) -> PIL.Image.Image:
    width, height = _fitting(frame.width, frame.height)
    picture: PIL.Image.Image = frame.to_image(width=width, height=height)
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _fitting(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, math.sqrt(_FRAME_PIXELS / (width * height)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shrunk(image: PIL.Image.Image) -> PIL.Image.Image:
    size = _fitting(*image.size)
    return image if size == image.size else image.resize(size, PIL.Image.Resampling.BICUBIC)


def _check_size(width: int, height: int, policy: MediaPolicy) -> None:
    if width * height > policy.max_pixels:
        raise MediaTooLarge(
            f"a frame of a video may have at most {policy.max_pixels:,} pixels, but has {width * height:,} "
            f"({width} x {height})"
        )


def _check_length(seconds: float, policy: MediaPolicy) -> None:
    if seconds > policy.max_video_seconds:
        raise MediaTooLarge(f"a video may last at most {policy.max_video_seconds:,.0f} seconds, but lasts longer")


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise MediaTooLarge("the video takes too long to decode: it has too many or too large frames")
