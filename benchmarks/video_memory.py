"""How much memory a long video takes: writes 10 minutes of 1080p, then decodes its frames in a fresh process.

    python benchmarks/video_memory.py [SECONDS]

Prints the file's size, the seconds and the peak memory of decoding 8 frames. The file goes to the temporary folder.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZE, RATE = (1920, 1080), 25


def write(path: Path, seconds: int) -> None:
    """Write a video whose picture moves once a second, with a key frame every 10 seconds."""
    import av
    import PIL.Image

    wide = PIL.Image.linear_gradient("L").convert("RGB").resize((SIZE[0] + seconds, SIZE[1]))
    with av.open(str(path), "w") as container:
        track: Any = container.add_stream("mpeg4", rate=RATE)
        track.width, track.height, track.pix_fmt, track.codec_context.gop_size = *SIZE, "yuv420p", 10 * RATE
        for second in range(seconds):
            frame = av.VideoFrame.from_image(wide.crop((second, 0, second + SIZE[0], SIZE[1]))).reformat(
                format="yuv420p"
            )
            for number in range(second * RATE, (second + 1) * RATE):
                frame.pts = number
                for packet in track.encode(frame):
                    container.mux(packet)
        for packet in track.encode():
            container.mux(packet)


def decode(path: Path) -> None:
    """Decode eight frames and print what it took, beyond what the libraries take."""
    import av
    import numpy as np

    from mllm_embed import MediaPolicy, Video, video

    del av, np
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    clip = asyncio.run(video.load(Video(path), MediaPolicy.local()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{len(clip.frames)} frames at {', '.join(f'{time:.0f}' for time in clip.times)} s")
    print(f"decoded in {time.perf_counter() - start:.1f} s; {peak / 1024:.0f} MiB at most, {before / 1024:.0f} before")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--decode"]:
        decode(Path(sys.argv[2]))
    else:
        length = int(sys.argv[1]) if len(sys.argv) > 1 else 600
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "film.mp4"
            write(made, length)
            print(f"{length} s of {SIZE[0]} x {SIZE[1]}, {made.stat().st_size / 2**20:.0f} MiB")
            again = [sys.executable, __file__, "--decode", str(made)]
            subprocess.run(again, check=True)  # noqa: S603  # this very file
