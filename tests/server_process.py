"""A real server in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx
import numpy as np
from safetensors.numpy import save_file

from mllm_embed.backends.fake import FAKE_MODEL


def servable_fake(path: Path) -> Path:
    """Make a model directory that `serve --backend fake` takes: everything but real weights."""
    shutil.copytree(FAKE_MODEL, path)
    config = json.loads((path / "config.json").read_text())
    config["text_config"] = {"hidden_size": 64, "max_position_embeddings": 8192}
    (path / "config.json").write_text(json.dumps(config))
    save_file({"nothing": np.zeros(1, dtype=np.float32)}, path / "model.safetensors")
    return path


class ServerProcess:
    """`mllm-embed serve MODEL ...` on a free port; its output goes to a file.

    Args:
        arguments: after `serve`.
        log: file for stdout and stderr.
        environment: added to this process's own.
    """

    def __init__(self, *arguments: str, log: Path, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "mllm_embed.cli", "serve", *arguments]
        self._log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_for(self, text: str, *, seconds: float = 240) -> str:
        """Wait until the output holds `text`, and return the output."""
        end = time.monotonic() + seconds
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"no {text!r} in the output; exit code {self.process.poll()}\n{self.output}")
            time.sleep(0.1)
        return self.output

    def wait_ready(self, verify: ssl.SSLContext | bool = True) -> str:
        """Wait until the API answers, and return its URL; `verify` is what a https certificate is checked against."""
        line = next(line for line in self.wait_for("Ctrl-C stops").splitlines() if line.startswith("  API"))
        url = line.split()[1].removesuffix("/v1")
        assert httpx.get(f"{url}/health", trust_env=False, verify=verify).status_code == 200
        return url

    def stop(self, number: signal.Signals, *, group: bool = False) -> int:
        """Send a signal (to the whole process group, as a terminal does with Ctrl-C) and return the exit code."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
