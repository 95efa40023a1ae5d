"""API keys: known by their hashes, from the command line, the environment or a file, each with limits of its own.

A key is a long random string, so one SHA-256 of it is enough: there is no dictionary to guess it from. The key file
holds hashes only, so that who reads it can call nothing:

    [keys.search-team]
    sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    requests_per_minute = 600
    tokens_per_minute = 1_000_000
    concurrent_requests = 32
    admin = true
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mllm_embed_serving.invalid_settings import InvalidSettings

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """What one key may ask for; None is no limit."""

    requests_per_minute: int | None = None
    """Requests, as a bucket that refills evenly: a minute's worth may come at once."""
    tokens_per_minute: int | None = None
    """Tokens read by the model, visual ones included; charged once they are known, so a last request may overdraw."""
    concurrent_requests: int | None = None
    """Requests under way at once."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidSettings(f"{field.name} must be an integer of at least 1, but is {value!r}")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """One key, without the key.

    Attributes:
        name: what it is called in logs and metrics.
        digest: its SHA-256, 32 bytes.
        limits: what it may ask for.
        admin: whether it may load and unload adapters.
    """

    name: str
    digest: bytes
    limits: KeyLimits = KeyLimits()
    admin: bool = False

    @classmethod
    def of(cls, key: str, name: str, limits: KeyLimits | None = None, *, admin: bool = False) -> ApiKey:
        """Hash a key.

        Raises:
            InvalidSettings: it cannot travel in a header.
        """
        if not (key.isascii() and key.isprintable() and key.strip() == key and key):
            raise InvalidSettings("an API key must be printable ASCII and not empty, since it travels in a header")
        own = limits if limits is not None else KeyLimits()
        return cls(name=name, digest=digest_of(key), limits=own, admin=admin)


def digest_of(key: str) -> bytes:
    """Return the hash by which a key is known."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def given_keys(keys: Iterable[str], limits: KeyLimits) -> tuple[ApiKey, ...]:
    """Name the keys of a command line or environment variable `key-1`, `key-2`, ...

    Raises:
        InvalidSettings: one cannot travel in a header.
    """
    return tuple(ApiKey.of(key, f"key-{number}", limits) for number, key in enumerate(keys, start=1))


def all_keys(
    keys: Iterable[str], file: Path | None, limits: KeyLimits, *, admins: Iterable[str] = ()
) -> tuple[ApiKey, ...]:
    """Return the keys given and those of a key file.

    Args:
        keys: ordinary keys.
        file: a key file, if there is one.
        limits: those of keys that have none of their own.
        admins: keys that may load and unload adapters.

    Raises:
        InvalidSettings: one of them cannot be used.
    """
    given = given_keys(keys, limits)
    given += tuple(ApiKey.of(key, f"admin-{number}", limits, admin=True) for number, key in enumerate(admins, start=1))
    return given if file is None else given + read_key_file(file, limits)


def read_key_file(path: Path, limits: KeyLimits) -> tuple[ApiKey, ...]:
    """Read a key file.

    Args:
        path: a TOML file with a table per key under `keys`.
        limits: those of keys that set none of their own.

    Raises:
        InvalidSettings: it cannot be read, or is not a key file; the message names the offending line or table.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidSettings(f"the key file {path} cannot be read: {reason}") from None
    keys = tables.get("keys")
    if not isinstance(keys, dict) or not keys or len(tables) > 1:
        raise InvalidSettings(f"the key file {path} must hold tables [keys.NAME], and nothing else")
    found = tuple(_read_key(name, table, limits, path) for name, table in keys.items())
    if len({key.digest for key in found}) < len(found):
        raise InvalidSettings(f"the key file {path} holds the same key under two names")
    return found


def _read_key(name: str, table: Any, limits: KeyLimits, path: Path) -> ApiKey:
    where = f"the key file {path}, [keys.{name}]"
    if not isinstance(table, dict) or not isinstance(table.get("sha256"), str):
        raise InvalidSettings(f"{where}: needs sha256, the hash of the key in hexadecimal digits")
    if not _SHA256.fullmatch(table["sha256"]):
        raise InvalidSettings(f"{where}: sha256 must be 64 lowercase hexadecimal digits (printf %s KEY | sha256sum)")
    own = {field: value for field, value in table.items() if field not in ("sha256", "admin")}
    if type(admin := table.get("admin", False)) is not bool:
        raise InvalidSettings(f"{where}: admin must be true or false, but is {admin!r}")
    known = {field.name for field in fields(KeyLimits)}
    if unknown := sorted(own.keys() - known):
        raise InvalidSettings(f"{where}: may hold sha256, admin, {', '.join(sorted(known))}, but holds {unknown[0]!r}")
    try:
        digest = bytes.fromhex(table["sha256"])
        return ApiKey(name=name, digest=digest, limits=replace(limits, **own), admin=admin)
    except InvalidSettings as error:
        raise InvalidSettings(f"{where}: {error}") from None
