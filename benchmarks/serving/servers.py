"""Servers in processes of their own, for benchmarks: started on a free port, looked at, stopped."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

_READY_S = 600


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: its address.
        process: its process.
    """

    url: str
    process: subprocess.Popen[bytes]

    def family(self) -> list[int]:
        """Return the server's process and all below it, as Linux lists them."""
        found, known = [self.process.pid], _parents()
        for pid in found:
            found += [child for child, parent in known.items() if parent == pid]
        return found

    def engine(self) -> int:
        """Return the process of the engine: the one below the server that takes most memory."""
        return max(self.family()[1:], key=_resident)

    def memory(self) -> int:
        """Return the bytes in memory of the server and all below it."""
        return sum(map(_resident, self.family()))


@contextlib.contextmanager
def running(*arguments: str, log: Path) -> Iterator[Server]:
    """Start `mllm-embed serve ...`, and stop it in the end."""
    command = [sys.executable, "-m", "mllm_embed.cli", "serve", *arguments, "--log-level", "warning"]
    with running_command(command, log) as server:
        yield server


@contextlib.contextmanager
def running_command(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Start a server that takes `--port` and answers `/health`; stop it in the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603  # our own command
            [*command, "--host", "127.0.0.1", "--port", port],
            stdout=stream,
            stderr=stream,
            env={**os.environ, **(environment or {})},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, log)
        yield Server(url, process)
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"the server does not start; see {log}")


def _parents() -> dict[int, int]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
