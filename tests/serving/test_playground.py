from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.errors import BackendUnavailable
from mllm_embed_serving.playground import Playground

pytestmark = pytest.mark.fast

LISTENS = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LISTENS
ENDS = "import sys; sys.exit(3)"


class Started:
    """What `Playground` was asked to run, and a stand-in that runs instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.script = LISTENS
        self.command: list[str] = []
        self.environment: dict[str, str] = {}
        self._popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", self._start)

    def _start(self, command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
        self.command, self.environment = command, env
        self.process = self._popen([sys.executable, "-c", self.script, str(self.port)], env=env, **options)
        return self.process

    def playground(self) -> Playground:
        return Playground(
            api_url="http://127.0.0.1:1", host="127.0.0.1", port=self.port, gallery=Path("pictures"), api_key="secret"
        )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


@pytest.mark.parametrize("script", [LISTENS, STUBBORN])
async def test_it_is_waited_for_and_ended(started: Started, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllm_embed_serving.playground._STOP_S", 0.5)
    started.script = script
    playground = started.playground()
    await asyncio.wait_for(playground.wait_ready(), 30)
    await playground.stop()
    assert started.process.returncode is not None
    await playground.stop()


async def test_one_that_ends_is_one_sentence(started: Started) -> None:
    started.script = ENDS
    with pytest.raises(BackendUnavailable, match="exit code 3; the API keeps running"):
        await asyncio.wait_for(started.playground().wait_ready(), 30)


async def test_the_key_travels_in_the_environment(started: Started) -> None:
    playground = started.playground()
    await playground.stop()
    assert started.command[1:4] == ["-m", "mllm_embed.cli", "demo"]
    assert "secret" not in " ".join(started.command)
    assert started.environment["MLLM_EMBED_API_KEY"] == "secret"
    assert started.command[-2:] == ["--gallery", "pictures"]
