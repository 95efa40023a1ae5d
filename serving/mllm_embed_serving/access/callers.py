"""A key at work: what its limits let through, and what it has used of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Literal

from mllm_embed_serving.access.keys import ApiKey, KeyLimits, digest_of
from mllm_embed_serving.access.rates import Bucket, Clock, duration
from mllm_embed_serving.errors import RateLimited

ANONYMOUS = "anonymous"
"""The name of all callers together where no key is asked for."""


class Caller:
    """Everybody who uses one key.

    Args:
        name: the key's name.
        limits: what it may ask for.
        clock: seconds that never go back.
        scope: what tells its results and files from everybody else's, for as long as the key exists; names may change.
        admin: whether it may load and unload adapters.

    Attributes:
        name: the key's name.
        scope: see above.
        admin: see above.
    """

    def __init__(
        self,
        name: str,
        limits: KeyLimits,
        clock: Clock = time.monotonic,
        *,
        scope: str = ANONYMOUS,
        admin: bool = False,
    ) -> None:
        self.name = name
        self.scope = scope
        self.admin = admin
        self._buckets: dict[Literal["requests", "tokens"], Bucket] = {}
        if limits.requests_per_minute is not None:
            self._buckets["requests"] = Bucket(limits.requests_per_minute, clock)
        if limits.tokens_per_minute is not None:
            self._buckets["tokens"] = Bucket(limits.tokens_per_minute, clock)
        self._most_at_once = limits.concurrent_requests
        self._at_once = 0

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count one request, as long as it is under way.

        Raises:
            RateLimited: the key has used up its requests or tokens, or has as many requests under way as it may.
        """
        for what, bucket in self._buckets.items():
            if (wait := bucket.wait_s(1)) > 0:
                raise RateLimited(
                    f"this key may use {bucket.per_minute} {what} per minute, and has: "
                    f"send the request again in {duration(wait)}",
                    retry_after_s=wait,
                )
        if self._most_at_once is not None and self._at_once >= self._most_at_once:
            raise RateLimited(
                f"this key may have {self._most_at_once} requests under way, and has {self._at_once}", retry_after_s=1
            )
        if "requests" in self._buckets:
            self._buckets["requests"].take(1)
        self._at_once += 1
        try:
            yield
        finally:
            self._at_once -= 1

    def pay(self, tokens: int) -> None:
        """Charge the tokens of a request that has been answered."""
        if "tokens" in self._buckets:
            self._buckets["tokens"].take(tokens)

    def headers(self) -> dict[str, str]:
        """Return OpenAI's rate-limit headers, for the limits that there are."""
        found = {}
        for what, bucket in self._buckets.items():
            found[f"x-ratelimit-limit-{what}"] = str(bucket.per_minute)
            found[f"x-ratelimit-remaining-{what}"] = str(bucket.remaining)
            found[f"x-ratelimit-reset-{what}"] = duration(bucket.reset_s)
        return found


class Callers:
    """All keys of a server.

    Args:
        keys: the keys; without any, everybody is one caller and no key is asked for.
        limits: those of the anonymous caller.
    """

    def __init__(self, keys: Iterable[ApiKey], limits: KeyLimits) -> None:
        self._by_digest = {
            key.digest: Caller(key.name, key.limits, scope=key.digest.hex(), admin=key.admin) for key in keys
        }
        self._anonymous = None if self._by_digest else Caller(ANONYMOUS, limits)

    def find(self, key: str) -> Caller | None:
        """Return whose key it is.

        Its hash is looked up: how long that takes says nothing about a key, since hashes cannot be steered.
        """
        if self._anonymous is not None:
            return self._anonymous
        return self._by_digest.get(digest_of(key)) if key else None
