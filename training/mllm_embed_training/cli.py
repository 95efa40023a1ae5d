"""`mllm-embed train` and `mllm-embed export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, e.g. training/configs/toy-contrastive.yaml")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value, e.g. --set optim.steps=100; repeatable")
    ] = None,
) -> None:
    """Train one stage: make an LVLM (generative) or turn one into an embedder (contrastive).

    A run continues from its newest checkpoint; Ctrl-C or SIGTERM writes one and stops.
    The result is RUN_DIR/model: a model directory, or an adapter directory that `mllm-embed export` merges.

    Examples:

      mllm-embed train training/configs/toy-lvlm.yaml

      mllm-embed train training/configs/mini-contrastive.yaml --set optim.steps=500 --set data.workers=8
    """
    from mllm_embed_training.build import build_stage, save_result
    from mllm_embed_training.config import load_config
    from mllm_embed_training.trainer import train as run

    config = load_config(recipe, set_)
    run_dir = Path(config.run_dir)
    stage, start = build_stage(config, run_dir)
    (run_dir / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if not run(config, stage, run_dir):
        typer.echo(f"stopped early; run the same command again to go on from {run_dir}", err=True)
        return
    save_result(stage, start, run_dir / "model", name=run_dir.name)
    typer.echo(f"{run_dir / 'model'} is ready; curves: {run_dir / 'curves.png'}")
