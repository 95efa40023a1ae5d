"""How much memory a long document takes: writes a PDF of 300 scanned pages, then embeds it in a fresh process.

    python benchmarks/document_memory.py [PAGES]

The engine is the one that hashes, so that what is measured is opening, drawing and preparing pages, not a model. Prints
the file's size, the seconds and the peak memory. The file goes to the temporary folder.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

A4 = (1240, 1754)
"""A page at 150 dots per inch."""


def write(path: Path, pages: int) -> None:
    """Write a document whose pages differ."""
    import PIL.Image

    wide = PIL.Image.linear_gradient("L").convert("RGB").resize((A4[0] + pages, A4[1]))
    sheets = (wide.crop((page, 0, page + A4[0], A4[1])) for page in range(pages))
    next(sheets).save(path, "PDF", resolution=150.0, save_all=True, append_images=sheets)


def embed(path: Path) -> None:
    """Embed the document and print what it took, beyond what the libraries take."""
    import pypdfium2  # type: ignore[import-untyped]  # it ships no types

    from mllm_embed.backends.fake import fake_embedder
    from mllm_embed.long_inputs import embed_document

    del pypdfium2
    with fake_embedder() as embedder:
        embedder.embed(["warm"])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        vectors = embed_document(embedder, path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{len(vectors)} pages at 144 dpi in {time.perf_counter() - start:.1f} s")
    print(f"{peak / 1024:.0f} MiB at most, {before / 1024:.0f} before")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--embed"]:
        embed(Path(sys.argv[2]))
    else:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "report.pdf"
            write(made, count)
            print(f"{count} pages, {made.stat().st_size / 2**20:.0f} MiB")
            again = [sys.executable, __file__, "--embed", str(made)]
            subprocess.run(again, check=True)  # noqa: S603  # this very file
