"""The options of `mllm-embed serve`: each does something, and means the same wherever it is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mllm_embed.cli import LazyCommand, build
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.options import ServeOptions, parse

pytestmark = pytest.mark.fast

NAMES = [field.name for field in dataclasses.fields(ServeOptions)]
NO_SETTINGS = {"model", "host", "port", "backend", "max_tokens", "log_level", "log_format"} | {
    name for name in NAMES if name.startswith("demo") or name == "gallery"
}
"""Options of the process: what it loads, where it listens, what it logs, the playground."""
WORDS = {
    "adapter": ["--adapter", "red=adapters/red"],
    "adapters_dir": ["--adapters-dir", "adapters", "--admin-key", "a"],
    "media_domain": ["--media-domain", "example.org", "--allow-url-media"],
    "private_media_host": ["--private-media-host", "10.0.0.1:80", "--allow-url-media"],
    "allow_origin": ["--allow-origin", "https://example.org"],
    "token_ids": ["--token-ids", "reject"],
}
"""What cannot be made up from an option's type, or needs another beside it."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what options name, in which the test runs."""
    (tmp_path / "keys.toml").write_text(f'[keys.a]\nsha256 = "{"0" * 64}"\n')
    monkeypatch.chdir(tmp_path)
    for variable in ("MLLM_EMBED_API_KEY", "MLLM_EMBED_ADMIN_KEY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def words(name: str) -> list[str]:
    """Another value of an option than its default, as a user types it."""
    option = f"--{name.replace('_', '-')}"
    default = getattr(ServeOptions(), name)
    if name in WORDS:
        return WORDS[name]
    if name == "api_keys_file":
        return [option, "keys.toml"]
    if isinstance(default, bool):
        return [option]
    return [option, str(default + 1) if isinstance(default, (int, float)) else "7"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_SETTINGS and not name.startswith("tls_")])
def test_every_option_changes_the_settings(name: str, files: Path) -> None:
    given = words(name)
    assert dataclasses.asdict(parse(given).settings()) != dataclasses.asdict(parse(given[2:]).settings())


def test_units_are_those_of_the_help(files: Path) -> None:
    settings = parse(["--max-body-mb", "0.5", "--max-image-megapixels", "1.5", "--cache-disk-gb", "2"]).settings()
    assert settings.max_body_bytes == 2**19
    assert settings.max_image_pixels == 1_500_000
    assert settings.cache_disk_bytes == 2**31
    assert parse(["--cache-mb", "0"]).settings().cache_bytes is None


def test_the_command_takes_exactly_these(files: Path) -> None:
    command = build().commands["serve"]
    assert isinstance(command, LazyCommand)
    context = command.load().make_context("serve", ["some-model", "--port", "9", "--api-key", "a", "--api-key", "b"])
    assert ServeOptions(**context.params) == parse(["some-model", "--port", "9", "--api-key", "a", "--api-key", "b"])
    assert set(context.params) == set(NAMES)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--port", "many"], "--port"),
        (["--port", "70000"], "--port"),
        (["--backend", "none"], "none"),
    ],
)
def test_wrong_words_are_one_sentence(given: list[str], says: str) -> None:
    with pytest.raises(InvalidSettings, match=says) as caught:
        parse(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--adapter", "red"], "NAME=DIR"),
        (["--adapter", "red=a", "--adapter", "red=b"], "'red' twice"),
        (["--tls-cert", "server.crt"], "tls-key"),
    ],
)
def test_options_that_contradict_each_other(given: list[str], says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        parse(given).settings()
