"""Videos in training: the prompt that is learned is the prompt that is served, and mining passes videos on."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import PIL.Image
import pytest
import torch

from mllm_embed.backends.fake import FAKE_MODEL, fake_embedder
from mllm_embed.cli import main
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InvalidMedia, MediaNotAllowed
from mllm_embed.media import MediaPolicy
from mllm_embed.model_dir import ModelDir
from mllm_embed.preparation import Preparer
from mllm_embed.recipe import VIDEOS
from mllm_embed.regions import MarkedCrop
from mllm_embed.types import EmbedInput, Image, Text, Video
from mllm_embed_training.examples import opened
from mllm_embed_training.mining.vectors import Encoding
from mllm_embed_training.prompt_encoder import PromptEncoder

pytestmark = pytest.mark.fast

COLOURS = ("red", "green", "blue", "black")


def film(*colours: str) -> bytes:
    first, *rest = (PIL.Image.new("RGB", (64, 64), colour) for colour in colours)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=500)
    return buffer.getvalue()


def test_a_video_becomes_its_frames_where_it_stands() -> None:
    item = EmbedInput((Text("before"), Video(film(*COLOURS), frames=2), Text("after")), "an instruction")
    shown, pictures = opened(item)
    assert shown == EmbedInput((Text("before"), *(Image(one) for one in pictures), Text("after")), "an instruction")
    assert [one.getpixel((5, 5)) for one in pictures] == [(255, 0, 0), (0, 0, 0)]
    timed, _ = opened(item, timed=True)
    assert [part.text for part in timed.content if isinstance(part, Text)] == [
        *("before", "<0.0 seconds>", "<1.5 seconds>", "after")
    ]


def test_what_cannot_be_loaded_is_an_error_of_that_input() -> None:
    with pytest.raises(MediaNotAllowed, match="video URLs are not fetched here: download the video first"):
        opened(EmbedInput((Video("https://example.org/a.mp4"),)))
    with pytest.raises(InvalidMedia):
        opened(EmbedInput((Video(b"no film"),)))


@pytest.mark.parametrize("video", VIDEOS)
def test_the_prompt_that_is_learned_is_the_prompt_that_is_served(video: str, tiny_dir: ModelDir) -> None:
    model_dir = tiny_dir.with_recipe(video=video)
    item = EmbedInput((Video(film(*COLOURS), frames=3), Text("at night")))
    encoder = PromptEncoder(model_dir, torch.nn.Identity(), chunk_size=1, device=torch.device("cpu"), bf16=False)
    learned = encoder.render(item, "Find the same.")
    (served,) = asyncio.run(Preparer(model_dir, MediaPolicy.local(), MarkedCrop()).prepare([item], "Find the same."))
    assert learned.token_ids == served.token_ids
    assert [one.tobytes() for one in learned.images] == [one.tobytes() for one in served.images]
    assert len(learned.images) == 3


def test_mining_over_videos_writes_rows_that_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: fake_embedder())
    monkeypatch.setattr(Encoding, "describe", lambda _: {"model": str(FAKE_MODEL)})
    rows = []
    for colour in COLOURS:
        (tmp_path / f"{colour}.gif").write_bytes(film(colour, "white"))
        rows.append({"query": f"{colour}, then white", "positive": {"video": f"{colour}.gif", "frames": 2}})
    rows[0]["positive"] = {"video": "red.gif", "text": "at night"}
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "corpus.jsonl").write_text('{"video": "green.gif"}\n{"video": "red.gif", "frames": 2}\n')
    options = ["--corpus", str(tmp_path / "corpus.jsonl"), "--add-positives", "--output", str(tmp_path / "mined")]
    with pytest.raises(SystemExit) as stop:
        main(["mine", str(tmp_path / "rows.jsonl"), *options])
    assert not stop.value.code
    mined = [json.loads(line) for line in (tmp_path / "mined" / "mined.jsonl").read_text().splitlines()]
    assert [row["positive"] for row in mined][:2] == [
        {"video": "../red.gif", "text": "at night"},
        {"video": "../green.gif", "frames": 2},
    ]
    found = {json.dumps(side) for row in mined for side in row["negatives"]}
    assert '{"video": "../red.gif", "frames": 2}' in found
    assert "[video " in (tmp_path / "mined" / "report.md").read_text()


def test_vectors_of_the_embed_command_may_be_of_videos(
    fake_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    films = [f"{colour}.m4v" for colour in COLOURS]
    for colour, name in zip(COLOURS, films, strict=True):
        Path(name).write_bytes(film(colour, "white"))
    rows = [{"query": name, "positive": {"video": name}} for name in films]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("queries.txt").write_text("".join(f"{name}\n" for name in films))
    model = ("--model", str(fake_dir), "--backend", "fake")
    given = ("--query-vectors", "queries.parquet", "--target-vectors", "targets.parquet")
    commands = (
        ("embed", "queries.txt", "-o", "queries.parquet", *model),
        ("embed", *films, "-o", "targets.parquet", *model),
        ("mine", "rows.jsonl", *given, "--output", "mined"),
    )
    for one in commands:
        with pytest.raises(SystemExit) as stop:
            main(list(one))
        assert not stop.value.code, one
    mined = [json.loads(line) for line in Path("mined/mined.jsonl").read_text().splitlines()]
    assert [row["positive"] for row in mined] == [{"video": f"../{name}"} for name in films]
