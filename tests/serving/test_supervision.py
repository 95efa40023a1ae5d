from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from mllm_embed.errors import BackendUnavailable
from mllm_embed.types import Embedding, RenderedPrompt
from mllm_embed_serving import supervision
from mllm_embed_serving.supervision import SupervisedBackend

pytestmark = pytest.mark.fast

Until = Callable[[Callable[[], object]], Awaitable[None]]
PROMPT = [RenderedPrompt((1,))]


class Mortal:
    """An engine that can be killed."""

    name = "mortal"

    def __init__(self, number: int) -> None:
        self.number = number
        self.dead = False
        self.closed = 0
        self.stuck = False
        self.working = asyncio.Event()

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        self.check_health()
        self.working.set()
        await asyncio.sleep(0.01)
        self.check_health()
        return [Embedding(np.array([self.number], dtype=np.float32), 1) for _ in prompts]

    def check_health(self) -> None:
        if self.dead:
            raise BackendUnavailable("killed")

    async def aclose(self) -> None:
        self.closed += 1
        if self.stuck:
            await asyncio.sleep(5)
        if self.dead:
            raise RuntimeError("a dead engine cannot even be closed")
        self.dead = True


class Starter:
    """Starts engines, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.engines = [Mortal(0)]
        self.asked = 0
        self.failures = 0
        self.may = threading.Event()
        self.may.set()

    def __call__(self) -> Mortal:
        self.asked += 1
        self.may.wait(30)
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("not yet")
        self.engines.append(Mortal(len(self.engines)))
        return self.engines[-1]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "FIRST_WAIT_S", "LONGEST_WAIT_S"):
        monkeypatch.setattr(supervision, name, 0.005)


@pytest.fixture
def starter() -> Starter:
    return Starter()


@pytest.fixture
def backend(starter: Starter) -> SupervisedBackend:
    return SupervisedBackend(starter.engines[0], starter)


async def test_a_dead_engine_is_noticed_at_once_and_started_anew(
    backend: SupervisedBackend, starter: Starter, until: Until
) -> None:
    starter.may.clear()
    working = asyncio.create_task(backend.embed(PROMPT))
    await starter.engines[0].working.wait()
    starter.engines[0].dead = True
    with pytest.raises(BackendUnavailable, match="killed"):
        await working
    with pytest.raises(BackendUnavailable):
        backend.check_health()
    with pytest.raises(BackendUnavailable):
        await backend.embed(PROMPT)
    starter.may.set()
    await until(lambda: backend.restarts == 1 and backend._engine is not None)
    backend.check_health()
    assert (await backend.embed(PROMPT))[0].vector == 1
    await backend.aclose()
    assert starter.engines[1].closed == 1


async def test_it_is_noticed_without_any_request(backend: SupervisedBackend, starter: Starter, until: Until) -> None:
    starter.engines[0].dead = True
    await until(lambda: backend.restarts == 1)
    await backend.aclose()


async def test_one_that_cannot_even_be_closed_is_left_behind(
    backend: SupervisedBackend, starter: Starter, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "CLOSE_S", 0.01)
    starter.engines[0].stuck = starter.engines[0].dead = True
    await until(lambda: backend.restarts == 1)
    backend.check_health()
    await backend.aclose()


async def test_starting_is_tried_until_it_works(backend: SupervisedBackend, starter: Starter, until: Until) -> None:
    starter.failures = 5
    starter.engines[0].dead = True
    await until(lambda: backend.restarts == 1)
    assert starter.failures == 0
    await backend.aclose()


async def test_nothing_is_started_once_the_server_stops(
    backend: SupervisedBackend, starter: Starter, until: Until
) -> None:
    await backend.aclose()
    await until(lambda: not backend._thread.is_alive())
    assert len(starter.engines) == 1
    with pytest.raises(BackendUnavailable):
        backend.check_health()


async def test_an_engine_that_comes_up_too_late_is_closed(
    backend: SupervisedBackend, starter: Starter, until: Until
) -> None:
    starter.may.clear()
    starter.engines[0].dead = True
    await until(lambda: starter.asked)
    await backend.aclose()
    starter.may.set()
    await until(lambda: not backend._thread.is_alive())
    assert starter.engines[1].closed == 1
