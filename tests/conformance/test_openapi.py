"""schemathesis over our OpenAPI document: nothing that it thinks of is a 5xx, and every answer is as described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.server_process import ServerProcess, servable_fake

PROGRAM = Path(sys.prefix) / "clients" / "bin" / "schemathesis"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
"""Its other checks want requests refused that we take: null counts as absent, and unknown fields are ignored."""


def test_every_answer_is_as_described_whatever_is_sent(tmp_path: Path) -> None:
    assert PROGRAM.exists(), f"{PROGRAM} is missing; `make test` makes it"
    model = servable_fake(tmp_path / "fake")
    arguments = (str(model), "--backend", "fake", "--port", "0", "--batch-dir", str(tmp_path / "batches"))
    with ServerProcess(*arguments, "--log-level", "error", log=tmp_path / "log") as server:
        url = server.wait_ready()
        command = [str(PROGRAM), "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS)]
        options = ["--phases", "fuzzing", "--max-examples", "10", "--seed", "1", "--no-color"]
        done = subprocess.run(
            [*command, *options, "--generation-database", "none"],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "Traceback" not in server.output
