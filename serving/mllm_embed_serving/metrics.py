"""Counters for Prometheus; every app has a registry of its own, so that two in one process do not collide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mllm_embed_serving.tracing import Tracer, Untraced

Stage = Literal["fetch", "decode", "render", "engine"]
"""What happens to an item, in order."""

_BUCKETS_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What the server counts.

    Args:
        tracer: follows single requests through the stages.

    Attributes:
        tracer: see above.
        registry: holds the series below.
        requests: answered requests by route and status.
        latency: seconds from the first byte of a request to the last of its answer, by route.
        in_flight: requests under way.
        items: vectors returned.
        tokens: prompt tokens read by the model, visual tokens included.
        images: images embedded.
        queued: items that wait for the engine or are in it.
        cache_hits: items that the cache answered, from memory or disk.
        cache_misses: items that it did not know; equal items in flight together count once.
        cache_bytes: memory that the cache takes.
        in_engine: prompts in the engine now, whichever model they are for.
        engine_prompts: prompts in the engine, itself included, whenever one comes in: what it can batch.
        request_items: items of each request.
        engine_up: whether the engine can take work.
        engine_restarts: how often it was started anew since the server started.
        stages: seconds that one item, picture or engine call spends in a stage.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.tracer = tracer if tracer is not None else Untraced()
        self.registry = CollectorRegistry()
        self.in_engine = 0
        self.requests = Counter(
            "mllm_embed_requests", "Answered requests.", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "mllm_embed_request_seconds", "Time to answer.", ["route"], buckets=_BUCKETS_S, registry=self.registry
        )
        self.in_flight = Gauge("mllm_embed_requests_in_flight", "Requests under way.", registry=self.registry)
        self.items = Counter("mllm_embed_items", "Vectors returned.", registry=self.registry)
        self.tokens = Counter("mllm_embed_tokens", "Prompt tokens read, visual ones included.", registry=self.registry)
        self.images = Counter("mllm_embed_images", "Images embedded.", registry=self.registry)
        self.queued = Gauge("mllm_embed_queued_items", "Items on their way to a vector.", registry=self.registry)
        self.cache_hits = Counter(
            "mllm_embed_cache_hits", "Items answered by the cache.", ["where"], registry=self.registry
        )
        self.cache_misses = Counter(
            "mllm_embed_cache_misses", "Items that the cache did not know.", registry=self.registry
        )
        self.cache_bytes = Gauge("mllm_embed_cache_bytes", "Memory of the cache.", registry=self.registry)
        self.engine_prompts = Histogram(
            "mllm_embed_engine_prompts", "Prompts in the engine.", buckets=_BUCKETS_ITEMS, registry=self.registry
        )
        self.request_items = Histogram(
            "mllm_embed_request_items", "Items of a request.", buckets=_BUCKETS_ITEMS, registry=self.registry
        )
        self.engine_up = Gauge("mllm_embed_engine_up", "Whether the engine can take work.", registry=self.registry)
        self.engine_restarts = Gauge(
            "mllm_embed_engine_restarts", "How often the engine was started anew.", registry=self.registry
        )
        self.stages = Histogram(
            "mllm_embed_stage_seconds", "Time in a stage.", ["stage"], buckets=_BUCKETS_S, registry=self.registry
        )

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Time what happens inside a `with` statement, whether it succeeds or not."""
        with self.stages.labels(name).time(), self.tracer.stage(name):
            yield

    def follow_engine(self, healthy: Callable[[], bool], restarts: Callable[[], int]) -> None:
        """Report the engine's health and restarts as they are when the metrics are read."""
        self.engine_up.set_function(healthy)
        self.engine_restarts.set_function(restarts)

    def record_request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            route: the route's path template, never the raw path, which callers could vary without end.
            status: HTTP status.
            seconds: time to answer.
        """
        self.requests.labels(route, str(status)).inc()
        self.latency.labels(route).observe(seconds)

    def record_embeddings(self, *, items: int, tokens: int, images: int) -> None:
        """Count what one successful request embedded."""
        self.request_items.observe(items)
        self.items.inc(items)
        self.tokens.inc(tokens)
        self.images.inc(images)

    def render(self) -> bytes:
        """Return all series in Prometheus' text format."""
        return generate_latest(self.registry)
