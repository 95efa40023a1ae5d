"""The server on a cluster: Ray Serve runs as many replicas of it as the load needs, behind its own proxy.

    serve run mllm_embed_serving.ray_serve:build options="mllm-embed-mini --max-items 512"
    serve run deploy/ray-serve.yaml

Each replica is what `mllm-embed serve` runs, engine included, without what belongs to a single process. Only this file
knows Ray, which comes with the extra `ray`.
"""

from __future__ import annotations

import gc
import shlex
from collections.abc import Mapping

from fastapi import FastAPI
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm_embed_serving.app import create_app
from mllm_embed_serving.engine import load_embedder
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.logs import set_up
from mllm_embed_serving.options import ServeOptions, parse
from mllm_embed_serving.tracing import OpenTelemetryTracer

_OF_ONE_PROCESS = {
    **dict.fromkeys(("host", "port", "tls_cert", "tls_key"), "Ray's proxy listens for all replicas"),
    **dict.fromkeys(("demo", "demo_host", "demo_port", "gallery"), "run `mllm-embed demo` beside the cluster"),
    **dict.fromkeys(("batch_dir",), "a folder of batches belongs to one server"),
    **dict.fromkeys(("adapters_dir",), "an adapter loaded later would be in one replica only; name it with --adapter"),
}
"""Options that mean nothing to a replica, and why."""


def build(arguments: Mapping[str, str]) -> serve.Application:
    """Return the application; Ray calls it with the `args` of its configuration.

    Args:
        arguments: `options`: what would stand after `mllm-embed serve`, in one string.

    Raises:
        InvalidSettings: something else is given, or an option cannot be used here.
    """
    if unknown := set(arguments) - {"options"}:
        raise InvalidSettings(f"args may hold options, but hold {', '.join(map(repr, sorted(unknown)))}")
    options = parse(shlex.split(arguments.get("options", "")))
    for name, reason in _OF_ONE_PROCESS.items():
        if getattr(options, name) != getattr(ServeOptions(), name):
            raise InvalidSettings(f"--{name.replace('_', '-')} cannot be used with Ray: {reason}")
    settings = options.settings()
    # More than a replica's own queue takes, so that it refuses as every server of ours does, and nobody waits in Ray's.
    return SERVER.options(max_ongoing_requests=2 * settings.max_queued_requests).bind(options)


class Replica:
    """One engine and the whole server around it.

    Args:
        options: checked by `build`.
    """

    def __init__(self, options: ServeOptions) -> None:
        set_up(options.log_level, options.log_format)
        self._settings = options.settings()
        self._embedder = load_embedder(options.model, options.backend, self._settings, options.max_tokens)

    async def __serve_build_asgi_app__(self) -> FastAPI:  # the name that Ray calls
        """Return the application, adapters loaded."""
        app = create_app(self._embedder, self._settings, OpenTelemetryTracer() if self._settings.otel else None)
        await app.state.service.load_adapters()
        gc.collect()
        gc.freeze()  # see runner.py
        app.add_middleware(_ProxyNamesRequests)
        return app

    def check_health(self) -> None:
        """Raise `BackendUnavailable` while the engine is down: a replica that stays so is replaced."""
        self._embedder.check_health()

    async def __del__(self) -> None:
        """Stop the engine, when Ray has let the requests under way finish."""
        await self._embedder.aclose()


class _ProxyNamesRequests:
    """Leaves `x-request-id` of answers to Ray's proxy, which gave the request its id and would add a second one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self._app(scope, receive, send_without_id)


SERVER: serve.Deployment = serve.deployment(
    name="server",
    autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 16},
    graceful_shutdown_timeout_s=40,
    health_check_period_s=2,
)(serve.ingress()(Replica))
"""What `build` binds to options; `deploy/ray-serve.yaml` sets it up anew."""
