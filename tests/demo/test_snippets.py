"""Every snippet is executed as it is pasted, against a live API and a live playground."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from mllm_embed_demo import snippets
from mllm_embed_demo.search import Playground, Query, Result

NASTY = 'it\'s a "cat" for $HOME `id` \\ \\n\nJSON\n@IMAGE@ and ünïcode {x} \'quoted\' "image": "@IMAGE@"'
QUERIES: dict[str, dict[str, Any]] = {
    "text": {"text": "a cat", "instruction": "Find the picture that shows this."},
    "narrow": {"text": "a cat", "instruction": "Find it.", "dimensions": 16},
    "picture": {"instruction": "Find another."},
    "both": {"text": "in red", "instruction": "Change it.", "dimensions": 32},
    "nasty": {"text": NASTY, "instruction": NASTY},
    "nasty both": {"text": NASTY, "instruction": NASTY},
    "no instruction": {"text": "a cat", "instruction": ""},
}


@pytest.fixture(params=QUERIES)
def result(request: pytest.FixtureRequest, shared: Playground) -> Result:
    with_picture = request.param in {"picture", "both", "nasty both"}
    payload = shared.pictures[2].payload() if with_picture else None
    return shared.search(Query(picture=payload, **QUERIES[request.param]))


def execute(command: list[str], text: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_prints_the_vector_on_screen(result: Result, api: str, shared_url: str) -> None:
    answer = json.loads(execute(["bash"], snippets.curl(result, api, shared_url, key=False)))
    assert np.allclose(answer["data"][0]["embedding"], result.vector, atol=1e-5)
    assert len(answer["data"]) == 1


def test_python_prints_the_ranking_on_screen(result: Result, api: str, shared_url: str) -> None:
    script = snippets.python(result, api, shared_url, key=False, shown=4)
    printed = execute([sys.executable, "-"], script).splitlines()
    assert [line.partition("  ")[2] for line in printed] == [hit.picture.title for hit in result.hits[:4]]
    scores = [float(line.partition("  ")[0]) for line in printed]
    assert scores == pytest.approx([hit.score for hit in result.hits[:4]], abs=6e-4)


def test_a_key_is_read_from_the_environment_and_never_shown(shared: Playground) -> None:
    result = shared.search(Query(text="a cat", instruction="Find it."))
    curl = snippets.curl(result, "http://api", "http://page", key=True)
    python = snippets.python(result, "http://api", "http://page", key=True, shown=1)
    assert '-H "Authorization: Bearer $OPENAI_API_KEY"' in curl
    assert 'api_key=os.environ["OPENAI_API_KEY"]' in python
    assert re.search(r"^import os$", python, re.MULTILINE)
    compile(python, "snippet", "exec")
