"""A rate, as a bucket that refills evenly and may be overdrawn.

What a request costs in tokens is known only once it has been embedded. So a request is let in while there is anything
in the bucket, and pays afterwards: one that was too large leaves a debt, which the next ones wait for. The well-kept
packages for rate limits (`limits` among them) record a cost only if it fits, so that such a request would be free.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

Clock = Callable[[], float]


class Bucket:
    """An allowance per minute.

    Args:
        per_minute: what refills in a minute, and the most that it holds.
        clock: seconds that never go back.

    Attributes:
        per_minute: what refills in a minute.
    """

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at = clock()

    def take(self, amount: int) -> None:
        """Pay; the level may fall below zero."""
        self._refill()
        self._level -= amount

    @property
    def remaining(self) -> int:
        """What can be taken now without a debt."""
        self._refill()
        return max(0, math.floor(self._level))

    def wait_s(self, amount: int) -> float:
        """Return the seconds until `amount` can be taken without a debt; 0 if it can be now."""
        self._refill()
        return max(0.0, (amount - self._level) * 60 / self.per_minute)

    @property
    def reset_s(self) -> float:
        """Seconds until it is full again."""
        return self.wait_s(self.per_minute)

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now


def duration(seconds: float) -> str:
    """Write a duration as OpenAI's headers do: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 10) / 10:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"
