"""docs/serving.md: its commands parse, its files load, its calls answer."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import httpx
import pytest

from mllm_embed.cli import build
from mllm_embed_serving.access.keys import KeyLimits, read_key_file
from mllm_embed_serving.errors import ANSWERS

pytestmark = pytest.mark.fast

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands(program: str) -> list[list[str]]:
    found = []
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and words[0] == program:
                found.append(words[1:])
    return found


def test_there_is_something_to_check() -> None:
    assert len(commands("mllm-embed")) >= 2
    assert len(commands("curl")) >= 1
    assert len(blocks("toml")) == 1


@pytest.mark.parametrize("words", commands("mllm-embed"), ids=" ".join)
def test_its_commands_exist_with_these_options(words: list[str]) -> None:
    name, *arguments = words
    command = build().commands[name].load()  # type: ignore[attr-defined]  # ours are all lazy
    command.make_context(name, arguments, resilient_parsing=False)


def test_every_option_that_it_names_exists() -> None:
    options = {option for parameter in build().commands["serve"].load().params for option in parameter.opts}  # type: ignore[attr-defined]
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert len(named) > 8
    assert named <= options


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`(test_\w+)` \|$", PAGE, re.MULTILINE)
    assert len(named) > 20
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py")]
    missing = [name for name in named if not any(f"def {name}(" in source for source in sources)]
    assert missing == []


def test_every_error_code_that_it_names_exists() -> None:
    codes = {answer.code for answer in ANSWERS.values()}
    named = set(re.findall(r"(?:4\d\d|5\d\d) `([a-z_]+)`", PAGE))
    assert len(named) >= 4
    assert named <= codes


def test_its_key_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(blocks("toml")[0])
    search, nightly = read_key_file(path, KeyLimits(requests_per_minute=60))
    assert search.limits == KeyLimits(requests_per_minute=600, tokens_per_minute=1_000_000, concurrent_requests=32)
    assert nightly.limits == KeyLimits(requests_per_minute=60)


@pytest.mark.parametrize("words", commands("curl"), ids=lambda words: words[0])
async def test_its_calls_answer(words: list[str], client: httpx.AsyncClient) -> None:
    address = httpx.URL(words[0])
    body = json.loads(words[words.index("-d") + 1])
    answer = await client.post(address.path, json={**body, "model": "fake"})
    assert answer.status_code == 200
    assert [entry["object"] for entry in answer.json()["data"]] == ["embedding", "error"]


async def test_every_series_that_it_names_exists_and_the_other_way_round(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    existing = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    existing = {name for name in existing if not name.endswith("_created")}
    named = set(re.findall(r"`(mllm_embed_\w+)", PAGE))
    assert named == existing
