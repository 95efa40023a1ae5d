"""Counters for Prometheus; every app has a registry of its own, so that two in one process do not collide."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Stage = Literal["fetch", "decode", "render", "engine"]
"""What happens to an item, in order."""

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What the server counts.

    Attributes:
        registry: holds the series below.
        requests: answered requests by route and status.
        latency: seconds from the first byte of a request to the last of its answer, by route.
        in_flight: requests under way.
        items: vectors returned.
        tokens: prompt tokens read by the model, visual tokens included.
        images: images embedded.
        stages: seconds that one item, picture or engine call spends in a stage.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self.stages = Histogram(
            "mllm_embed_stage_seconds", "Time in a stage.", ["stage"], buckets=_BUCKETS_S, registry=self.registry
        )

    def stage(self, name: Stage) -> AbstractContextManager[Any]:
        """Time what happens inside a `with` statement, whether it succeeds or not."""
        return self.stages.labels(name).time()

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
        self.items.inc(items)
        self.tokens.inc(tokens)
        self.images.inc(images)

    def render(self) -> bytes:
        """Return all series in Prometheus' text format."""
        return generate_latest(self.registry)
