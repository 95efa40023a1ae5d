"""`mllm-embed bench`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from mllm_embed_serving.bench.workloads import Kind, Workload
from mllm_embed_serving.invalid_settings import InvalidSettings

if TYPE_CHECKING:
    import aiohttp

    from mllm_embed_serving.bench.load import Measurement

_COLUMNS = {
    "requests_per_s": "requests/s",
    "items_per_s": "items/s",
    "tokens_per_s": "tokens/s",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "answered": "answered",
    "refused": "429",
    "failed": "failed",
}


def bench(
    what: Annotated[Literal["serve"], typer.Argument(help="What to measure: a running server.")],
    *,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None, typer.Option(envvar="MLLM_EMBED_API_KEY", help="Key of the server. Prefer the variable.")
    ] = None,
    kind: Annotated[
        Literal["all", "text", "image", "mixture"], typer.Option(help="Texts, pictures, pictures with texts, or each.")
    ] = "all",
    clients: Annotated[int, typer.Option(help="Closed loop: requests under way at any time.", min=1)] = 32,
    rate: Annotated[
        float | None, typer.Option(help="Open loop instead: requests per second, at random times.", min=0.001)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time per kind.", min=0.01)] = 10,
    items: Annotated[int, typer.Option(help="Texts per request.", min=1)] = 1,
    repeated: Annotated[float, typer.Option(help="Share of requests sent before.", min=0, max=1)] = 0,
    pixels: Annotated[int, typer.Option(help="Side of the pictures.", min=8)] = 224,
    seed: Annotated[int, typer.Option(help="Begins the stream of requests.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder for latencies.json and latencies.png.")] = None,
) -> None:
    """Measure a running server under load: a table, and the latencies as a plot.

    Every request differs, unless --repeated says otherwise, so that no cache answers for the engine. Compare only
    within one run: machines are noisy, and a client on the server's machine takes its share.

    Examples:
      mllm-embed bench serve --kind text --items 64 --clients 4

      mllm-embed bench serve --rate 50 --seconds 30 --output bench
    """
    del what  # there is one thing to measure so far
    workloads = {
        name: Workload(kind=name, items=items, pixels=pixels, repeated=repeated, seed=seed)
        for name in (get_args(Kind) if kind == "all" else (kind,))
    }
    found = asyncio.run(_measure(url, api_key, workloads, clients=clients, rate=rate, seconds=seconds))
    print_table(found, f"{url}, {f'{clients} clients' if rate is None else f'{rate:g} requests/s'}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        latencies = {name: measurement.latencies for name, measurement in found.items()}
        (output / "latencies.json").write_text(json.dumps(latencies))
        plot(found, output / "latencies.png")


def print_table(found: dict[str, Measurement], title: str) -> None:
    """Print one row per measurement."""
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", *_COLUMNS.values(), title=title)
    for name, measurement in found.items():
        summary = measurement.summary()
        table.add_row(name, *(_shown(summary[column]) for column in _COLUMNS))
    Console().print(table)


def plot(found: dict[str, Measurement], path: Path) -> None:
    """Draw which share of the answers came within which time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for name, measurement in found.items():
        ordered = sorted(measurement.latencies)
        axes.plot(
            [1000 * latency for latency in ordered], [(n + 1) / len(ordered) for n in range(len(ordered))], label=name
        )
    axes.set(xlabel="ms", ylabel="share of answers", xscale="log", title="Time to answer")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


async def _measure(
    url: str,
    api_key: str | None,
    workloads: dict[Kind, Workload],
    *,
    clients: int,
    rate: float | None,
    seconds: float,
) -> dict[str, Measurement]:
    from mllm_embed_serving.bench.load import closed_loop, open_loop, open_session

    found: dict[str, Measurement] = {}
    async with open_session(url, api_key) as session:
        model = await _served_model(session, url)
        for name, workload in workloads.items():
            bodies = workload.requests(model)
            if rate is None:
                found[name] = await closed_loop(session, bodies, clients=clients, seconds=seconds)
            else:
                found[name] = await open_loop(session, bodies, rate=rate, seconds=seconds)
    return found


async def _served_model(session: aiohttp.ClientSession, url: str) -> str:
    import aiohttp

    from mllm_embed_serving.bench.load import served_model

    try:
        return await served_model(session)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError) as error:
        raise InvalidSettings(f"{url} does not list a model: {str(error) or type(error).__name__}") from None


def _shown(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
