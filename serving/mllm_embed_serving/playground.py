"""The playground as a child process: serving knows its command, never its code."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from mllm_embed.errors import BackendUnavailable
from mllm_embed_serving.addresses import reachable, url

_STOP_S = 3.0
_POLL_S = 0.25


class Playground:
    """A running playground.

    Args:
        api_url: where the API answers.
        host: address on which it listens.
        port: port on which it listens.
        gallery: folder of example pictures; None lets it make its own.
        api_key: key of the API; travels in the environment, where other users of the machine cannot read it.
        ready_s: longest wait for it, in seconds.
    """

    def __init__(
        self, *, api_url: str, host: str, port: int, gallery: Path | None, api_key: str | None, ready_s: float = 120.0
    ) -> None:
        self._address = (reachable(host), port)
        self.url = url(host, port)
        self._ready_s = ready_s
        command = [sys.executable, "-m", "mllm_embed.cli", "demo", "--api-url", api_url]
        command += ["--host", host, "--port", str(port)]
        if gallery is not None:
            command += ["--gallery", str(gallery)]
        key = {} if api_key is None else {"MLLM_EMBED_API_KEY": api_key}
        # Its own session: Ctrl-C in the terminal reaches only the server, which then stops it in order.
        self._process = subprocess.Popen(command, env={**os.environ, **key}, start_new_session=True)  # noqa: S603 - our own command

    async def wait_ready(self) -> None:
        """Wait until it answers.

        Raises:
            BackendUnavailable: it ended instead, or takes too long.
        """
        for _ in range(int(self._ready_s / _POLL_S)):
            if self._process.poll() is not None:
                raise BackendUnavailable(
                    f"the playground ended with exit code {self._process.returncode}; the API keeps running"
                )
            if await _answers(*self._address):
                return
            await asyncio.sleep(_POLL_S)
        raise BackendUnavailable(f"the playground does not answer after {self._ready_s:g} s; the API keeps running")

    async def stop(self) -> None:
        """End the process; calling it twice is harmless."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, _STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
