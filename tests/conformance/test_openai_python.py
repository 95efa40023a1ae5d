"""openai-python's own tests of its embeddings, unmodified, against our server.

They are in its source distribution, not in its wheel, so they are fetched first:

    pip download --no-deps --no-binary openai openai==3.52.0
    tar xzf openai-3.52.0.tar.gz
    OPENAI_PYTHON=openai-3.52.0 pytest tests/conformance/test_openai_python.py

Left out are those in which the client validates the raw JSON strictly and leaves the encoding to itself: it then
asks for base64 and refuses it, whoever sends it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, servable_fake

FOLDER = os.environ.get("OPENAI_PYTHON")


@pytest.mark.skipif(FOLDER is None, reason="OPENAI_PYTHON names no source distribution of openai-python")
def test_its_own_tests_of_embeddings_pass(tmp_path: Path) -> None:
    model = servable_fake(tmp_path / "fake")
    recipe = json.loads((model / "mllm_embed.json").read_text())
    asked = {"name": "text-embedding-3-small", "matryoshka_dimensions": [1]}  # as those tests ask for it
    (model / "mllm_embed.json").write_text(json.dumps(recipe | asked))
    with ServerProcess(str(model), "--backend", "fake", "--port", "0", log=tmp_path / "log") as server:
        command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "tests/api_resources/test_embeddings.py"]
        command += ["-k", "loose or all_params"]
        environment = {**os.environ, "TEST_API_BASE_URL": f"{server.wait_ready()}/v1", "NO_PROXY": "*"}
        done = subprocess.run(
            command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "11 passed" in done.stdout
