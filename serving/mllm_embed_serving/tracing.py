"""Spans for OpenTelemetry: of requests, and of the stages inside them. Without it nothing is imported, nothing done.

The exporter is set up by the standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, ...); a caller's
`traceparent` is continued. Spans hold routes, statuses and counts, never content.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from mllm_embed_serving.invalid_settings import InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace.export import SpanExporter


class Tracer(Protocol):
    """What the server needs of a tracing library."""

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        """Open the span of a request, below the one that its headers name."""
        ...

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Open a span inside that of the current request."""
        ...

    def describe(self, **attributes: str | int) -> None:
        """Write into the current span."""
        ...


class Untraced:
    """Traces nothing."""

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Do nothing."""
        return nullcontext()

    def stage(self, name: str) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Do nothing."""
        return nullcontext()

    def describe(self, **attributes: str | int) -> None:
        """Do nothing."""


class OpenTelemetryTracer:
    """Traces with OpenTelemetry.

    Args:
        exporter: where spans go; None sends them by OTLP over HTTP.

    Raises:
        InvalidSettings: the packages are not installed.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        except ModuleNotFoundError as error:
            raise InvalidSettings(
                f"--otel needs the package {error.name!r}: install opentelemetry-sdk and "
                "opentelemetry-exporter-otlp-proto-http"
            ) from None
        processor = BatchSpanProcessor(OTLPSpanExporter()) if exporter is None else SimpleSpanProcessor(exporter)
        self._provider = TracerProvider()
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("mllm-embed")
        self._extract = propagate.extract
        self._current = trace.get_current_span
        self._kind = trace.SpanKind.SERVER

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[None]:
        """Open the span of a request, below the one that its headers name."""
        with self._tracer.start_as_current_span(name, context=self._extract(headers), kind=self._kind):
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Open a span inside that of the current request."""
        with self._tracer.start_as_current_span(name):
            yield

    def describe(self, **attributes: str | int) -> None:
        """Write into the current span."""
        self._current().set_attributes(attributes)
