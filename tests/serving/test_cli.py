"""The `serve` command as a process, on the fake backend."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from mllm_embed.cli import main
from tests.server_process import ServerProcess, servable_fake


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return servable_fake(tmp_path_factory.mktemp("model") / "fake")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


class Ended(NamedTuple):
    """How a command ended."""

    code: object
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run `mllm-embed serve ...` in this process, where it is expected to end at once."""
    monkeypatch.setenv("COLUMNS", "200")

    def serve(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as stopped:
            main(["serve", *arguments])
        return Ended(stopped.value.code, *capsys.readouterr())

    return serve


def test_the_printed_command_works_when_it_is_pasted_and_ctrl_c_stops_everything(model: Path, tmp_path: Path) -> None:
    arguments = (str(model), "--backend", "fake", "--port", "0")
    with ServerProcess(*arguments, log=tmp_path / "log", environment={"MLLM_EMBED_API_KEY": "k"}) as server:
        url = server.wait_ready()
        assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401
        if shutil.which("curl") is not None:
            lines = server.output.splitlines()
            start = next(number for number, line in enumerate(lines) if line.startswith("curl "))
            command = "\n".join(lines[start : start + 4]) + " --silent --noproxy '*'"
            environment = {**os.environ, "MLLM_EMBED_API_KEY": "k"}
            pasted = subprocess.run(
                ["/bin/bash", "-c", command], env=environment, capture_output=True, text=True, check=True
            )
            assert len(json.loads(pasted.stdout)["data"]) == 2, command
        assert server.stop(signal.SIGINT, group=True) == 0
        assert "Traceback" not in server.output


def test_keys_come_from_the_environment_and_from_a_file(model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[keys.c]\nsha256 = "{hashlib.sha256(b"three").hexdigest()}"\nrequests_per_minute = 1\n')
    arguments = (str(model), "--backend", "fake", "--port", "0", "--api-keys-file", str(keys))
    environment = {"MLLM_EMBED_API_KEY": "one two"}
    with ServerProcess(*arguments, log=tmp_path / "log", environment=environment) as server:
        url = server.wait_ready()

        def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return httpx.get(f"{url}/v1/models", headers=headers, trust_env=False).status_code

        assert [status(key) for key in ("one", "two", "three", "three", "one two", "four")] == [
            *(200, 200, 200),
            *(429, 401, 401),
        ]


def test_the_playground_needs_a_key_that_is_not_only_known_by_its_hash(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[keys.c]\nsha256 = "{hashlib.sha256(b"three").hexdigest()}"\n')
    done = run("--port", "0", "--demo", "--api-keys-file", str(keys))
    assert done.code == 2
    assert "--api-key" in done.err


def test_neither_huge_bodies_nor_endless_ones_harm_it(model: Path, tmp_path: Path) -> None:
    with ServerProcess(str(model), "--backend", "fake", "--port", "0", log=tmp_path / "log") as server:
        url = server.wait_ready()
        with httpx.Client(trust_env=False, timeout=60) as client:
            assert client.post(f"{url}/v1/embeddings", content=b" " * 100_000_000).status_code == 413
            chunks = (b" " * 1_000_000 for _ in range(100))
            assert client.post(f"{url}/v1/embeddings", content=chunks).status_code == 413
            assert client.get(f"{url}/health").status_code == 200
            with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 80)) as endless:
                endless.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")  # and no more
                assert client.get(f"{url}/health").status_code == 200
                assert server.stop(signal.SIGTERM) == 0


def test_a_taken_port_is_one_sentence(run: Callable[..., Ended], model: Path, taken: int) -> None:
    done = run(str(model), "--backend", "fake", "--port", str(taken))
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"port {taken}" in done.err
    assert "--port" in done.err


def test_a_taken_playground_port_is_found_before_anything_is_loaded(run: Callable[..., Ended], taken: int) -> None:
    done = run("/no/such/model", "--port", "0", "--demo", "--demo-port", str(taken))
    assert done.code == 2
    assert "--demo-port" in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/no/such/model", "--port", "0"], "/no/such/model"),
        (["--port", "0", "--max-items", "0"], "max_items must be greater than 0"),
        (["--port", "0", "--api-keys-file", "/no/such/file"], "/no/such/file"),
        (["--port", "0", "--api-key", "é"], "printable ASCII"),
        (["--port", "0", "--host", "203.0.113.7"], "203.0.113.7"),
    ],
)
def test_what_cannot_be_started_is_one_sentence(run: Callable[..., Ended], arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_it_can_be_stopped_while_the_engine_loads(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    os.mkfifo(tmp_path / "slow" / "mllm_embed.json")  # nobody ever writes into it, so that loading waits
    with ServerProcess(str(tmp_path / "slow"), "--backend", "fake", "--port", "0", log=tmp_path / "log") as server:
        server.wait_for("Loading")
        assert server.stop(signal.SIGTERM) == 0


def test_the_help_names_every_option_with_its_default(run: Callable[..., Ended]) -> None:
    done = run("--help")
    assert done.code == 0
    for option in ("--allow-url-media", "--demo-port", "--gallery", "--max-body-mb", "--api-key", "--backend", "8000"):
        assert option in done.out
    assert "mllm-embed serve --demo" in done.out
