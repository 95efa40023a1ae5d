from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mllm_embed_serving.access.keys import ApiKey, KeyLimits, given_keys, read_key_file
from mllm_embed_serving.invalid_settings import InvalidSettings

pytestmark = pytest.mark.fast

HASH = hashlib.sha256(b"secret").hexdigest()


def written(path: Path, text: str) -> Path:
    (path / "keys.toml").write_text(text)
    return path / "keys.toml"


def test_keys_are_known_by_their_hashes() -> None:
    one, two = given_keys(["secret", "other"], KeyLimits(requests_per_minute=3))
    assert (one.name, two.name) == ("key-1", "key-2")
    assert one.digest.hex() == HASH
    assert one.limits == KeyLimits(requests_per_minute=3)
    assert "secret" not in repr(one)


@pytest.mark.parametrize("key", ["", "é", "a\nb", " a"])
def test_a_key_must_fit_into_a_header(key: str) -> None:
    with pytest.raises(InvalidSettings, match="printable ASCII"):
        ApiKey.of(key, "x")


def test_a_file_gives_each_key_its_limits_and_the_servers_where_it_sets_none(tmp_path: Path) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    path = written(
        tmp_path,
        f'[keys.search]\nsha256 = "{HASH}"\ntokens_per_minute = 1_000\n\n[keys.batch-jobs]\nsha256 = "{other}"\n',
    )
    search, batch = read_key_file(path, KeyLimits(requests_per_minute=5))
    assert (search.name, search.digest.hex()) == ("search", HASH)
    assert search.limits == KeyLimits(requests_per_minute=5, tokens_per_minute=1000)
    assert batch.limits == KeyLimits(requests_per_minute=5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must hold tables"),
        ("[keys]\n", "must hold tables"),
        ("[other.a]\n", "must hold tables"),
        ("keys = 3", "must hold tables"),
        ("[keys.a\n", "cannot be read"),
        ("[keys.a]\n", "[keys.a]: needs sha256"),
        ("[keys.a]\nsha256 = 3\n", "[keys.a]: needs sha256"),
        ('[keys.a]\nsha256 = "secret"\n', "64 lowercase hexadecimal digits"),
        (f'[keys.a]\nsha256 = "{HASH}"\nrequests = 3\n', "holds 'requests'"),
        (f'[keys.a]\nsha256 = "{HASH}"\ntokens_per_minute = 0\n', "tokens_per_minute must be an integer of at least 1"),
        (f'[keys.a]\nsha256 = "{HASH}"\ntokens_per_minute = true\n', "but is True"),
        (f'[keys.a]\nsha256 = "{HASH}"\n[keys.b]\nsha256 = "{HASH}"\n', "same key under two names"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_key_file(written(tmp_path, text), KeyLimits())
    assert says in str(caught.value)
    assert "keys.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="No such file"):
        read_key_file(tmp_path / "nope", KeyLimits())
