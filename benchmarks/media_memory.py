"""How much memory long media take: makes one, then reads it in a fresh process.

    python benchmarks/media_memory.py video [SECONDS]
    python benchmarks/media_memory.py document [PAGES]

A video (10 minutes of 1080p unless told otherwise) is decoded to 8 frames. A PDF (300 scanned A4 pages) is embedded
page by page, on the engine that hashes, so that opening, drawing and preparing pages is measured, not a model. Prints
the file's size, the seconds and the peak memory of reading it. The file goes to the temporary folder. Linux only.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZE, RATE = (1920, 1080), 25
A4 = (1240, 1754)
"""A page at 150 dots per inch."""
_AT_ONCE = 10
"""Pages that are written at once."""


def write_video(path: Path, seconds: int) -> None:
    """Write a video whose picture moves once a second, with a key frame every 10 seconds."""
    import av
    import PIL.Image

    wide = PIL.Image.linear_gradient("L").convert("RGB").resize((SIZE[0] + seconds, SIZE[1]))
    with av.open(str(path), "w", format="mp4") as container:
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


def write_document(path: Path, pages: int) -> None:
    """Write a document whose pages differ."""
    import PIL.Image

    wide = PIL.Image.linear_gradient("L").convert("RGB").resize((A4[0] + pages, A4[1]))
    for start in range(0, pages, _AT_ONCE):
        sheets = [wide.crop((n, 0, n + A4[0], A4[1])) for n in range(start, min(pages, start + _AT_ONCE))]
        sheets[0].save(path, "PDF", resolution=150.0, save_all=True, append_images=sheets[1:], append=start > 0)


def read_video(path: Path) -> None:
    """Decode eight frames and print what it took, beyond what the libraries take."""
    import av
    import numpy as np

    from mllm_embed import MediaPolicy, Video, video

    del av, np
    before, start = peak(), time.perf_counter()
    clip = asyncio.run(video.load(Video(path), MediaPolicy.local()))
    print(f"{len(clip.frames)} frames at {', '.join(f'{time:.0f}' for time in clip.times)} s")
    print(f"in {time.perf_counter() - start:.1f} s; {peak():.0f} MiB at most, {before:.0f} before")


def read_document(path: Path) -> None:
    """Embed the pages and print what it took, beyond what the libraries take."""
    import pypdfium2  # type: ignore[import-untyped]  # it ships no types

    from mllm_embed.backends.fake import fake_embedder
    from mllm_embed.long_inputs import embed_document

    del pypdfium2
    with fake_embedder() as embedder:
        embedder.embed(["warm"])
        before, start = peak(), time.perf_counter()
        vectors = embed_document(embedder, path)
    print(f"{len(vectors)} pages at 144 dpi")
    print(f"in {time.perf_counter() - start:.1f} s; {peak():.0f} MiB at most, {before:.0f} before")


def peak() -> float:
    """Return the most memory that this program has had, in MiB; what started it is not counted, as it is in rusage."""
    (kib,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(kib) / 1024


WAYS = {"video": (write_video, read_video, 600), "document": (write_document, read_document, 300)}


def main(kind: str, *rest: str) -> None:
    """Write a medium and read it in a process of its own; with `--read PATH` only the latter."""
    write, read, length = WAYS[kind]
    if rest[:1] == ("--read",):
        read(Path(rest[1]))
        return
    length = int(rest[0]) if rest else length
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / kind
        write(made, length)
        print(
            f"{length} {'seconds' if kind == 'video' else 'pages'}, {made.stat().st_size / 2**20:.0f} MiB", flush=True
        )
        subprocess.run([sys.executable, __file__, kind, "--read", str(made)], check=True)  # noqa: S603  # this very file


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in WAYS:
        sys.exit(__doc__)
    main(*sys.argv[1:])
