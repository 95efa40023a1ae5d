from __future__ import annotations

import pytest

from mllm_embed_serving.access.callers import Caller
from mllm_embed_serving.access.keys import KeyLimits
from mllm_embed_serving.access.rates import Bucket, duration
from mllm_embed_serving.errors import RateLimited, answer_headers

pytestmark = pytest.mark.fast


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_refills_evenly_up_to_a_minutes_worth(clock: Clock) -> None:
    bucket = Bucket(60, clock)
    bucket.take(60)
    assert (bucket.remaining, bucket.wait_s(1), bucket.reset_s) == (0, 1, 60)
    clock.now += 1.5
    assert (bucket.remaining, bucket.wait_s(1)) == (1, 0)
    clock.now += 1000
    assert (bucket.remaining, bucket.reset_s) == (60, 0)


def test_a_debt_is_waited_for(clock: Clock) -> None:
    bucket = Bucket(60, clock)
    bucket.take(90)
    assert (bucket.remaining, bucket.wait_s(1)) == (0, 31)


def test_requests_beyond_the_rate_are_told_when_to_come_back(clock: Clock) -> None:
    caller = Caller("a", KeyLimits(requests_per_minute=2), clock)
    for _ in range(2):
        with caller.request():
            pass
    with pytest.raises(RateLimited, match="2 requests per minute") as caught, caller.request():
        pass
    assert answer_headers(caught.value) == {"retry-after": "30"}
    clock.now += 30
    with caller.request():
        pass


def test_tokens_are_paid_for_afterwards(clock: Clock) -> None:
    caller = Caller("a", KeyLimits(tokens_per_minute=100), clock)
    with caller.request():
        caller.pay(250)
    with pytest.raises(RateLimited, match="100 tokens per minute") as caught, caller.request():
        pass
    assert answer_headers(caught.value) == {"retry-after": "91"}


def test_requests_at_once() -> None:
    caller = Caller("a", KeyLimits(concurrent_requests=1))
    with caller.request(), pytest.raises(RateLimited, match="1 requests under way"), caller.request():
        pass
    with caller.request():
        pass


def test_a_request_that_is_refused_costs_nothing(clock: Clock) -> None:
    caller = Caller("a", KeyLimits(requests_per_minute=5, concurrent_requests=1), clock)
    with caller.request():
        for _ in range(9):
            with pytest.raises(RateLimited), caller.request():
                pass
    assert caller.headers()["x-ratelimit-remaining-requests"] == "4"


def test_headers_are_openais(clock: Clock) -> None:
    caller = Caller("a", KeyLimits(requests_per_minute=60, tokens_per_minute=6000), clock)
    with caller.request():
        caller.pay(50)
    assert caller.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5950",
        "x-ratelimit-reset-tokens": "500ms",
    }
    assert Caller("b", KeyLimits()).headers() == {}


@pytest.mark.parametrize(("seconds", "text"), [(0.02, "20ms"), (1.44, "1.5s"), (59, "59s"), (360, "6m0s")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
