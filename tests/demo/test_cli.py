from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import PIL.Image
import pytest
from rich.console import Console

from mllm_embed.errors import BackendUnavailable, MllmEmbedError
from mllm_embed_demo import cli
from mllm_embed_demo.gallery import GalleryError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_api_that_is_not_there_is_one_sentence() -> None:
    port = free_port()
    with pytest.raises(
        BackendUnavailable, match=rf"the API at http://127\.0\.0\.1:{port} cannot be reached; `mllm-embed serve`"
    ):
        cli.demo(api_url=f"http://127.0.0.1:{port}", wait=0)


def test_a_wrong_folder_is_one_sentence(api: str, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="there is no folder"):
        cli.demo(api_url=api, gallery=tmp_path / "none")


def test_a_wrong_model_is_one_sentence(api: str) -> None:
    with pytest.raises(MllmEmbedError, match="other"):
        cli.demo(api_url=api, model="other")


def test_a_taken_port_is_one_sentence(api: str, tmp_path: Path, draw: Callable[..., PIL.Image.Image]) -> None:
    draw(0).save(tmp_path / "a.png")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MllmEmbedError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*--port"):
            cli.demo(api_url=api, gallery=tmp_path, port=port)


def test_pictures_left_out_are_named_up_to_a_limit() -> None:
    console = Console(file=io.StringIO(), width=80)
    cli.report([f"{number}.png: [bold]bad" for number in range(25)], console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "left out: 0.png: [bold]bad"
    assert lines[-1] == "left out: 5 more"
    assert len(lines) == 21


def test_the_command_serves_a_folder_until_it_is_stopped(
    api: str, tmp_path: Path, draw: Callable[..., PIL.Image.Image]
) -> None:
    (tmp_path / "gallery").mkdir()
    draw(0).save(tmp_path / "gallery" / "a.png")
    (tmp_path / "gallery" / "b.png").write_bytes(b"no picture")
    port = free_port()
    command = [sys.executable, "-m", "mllm_embed.cli", "demo", "--api-url", api, "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--gallery", str(tmp_path / "gallery")],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    watchdog = threading.Timer(90, process.kill)
    watchdog.start()
    try:
        printed = ""
        while "format must be" not in printed and (line := process.stderr.readline()):
            printed += line
        assert f"Playground: http://127.0.0.1:{port}" in printed
        assert "left out: b.png: " in printed
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate()
        watchdog.cancel()
    assert "Traceback" not in printed + rest
    assert process.returncode == 0
