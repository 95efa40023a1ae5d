"""`mllm-embed train`, `mllm-embed export` and `mllm-embed soup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, e.g. training/configs/toy-contrastive.yaml")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value, e.g. --set optim.steps=100; repeatable")
    ] = None,
) -> None:
    """Train one stage: make an LVLM (generative), turn one into an embedder (contrastive, distill), or both (joint).

    A run continues from its newest checkpoint; Ctrl-C or SIGTERM writes one and stops.
    The result is RUN_DIR/model: a model directory, or an adapter directory that `mllm-embed export` merges.

    Examples:

      mllm-embed train training/configs/toy-lvlm.yaml

      mllm-embed train training/configs/mini-contrastive.yaml --set optim.steps=500 --set data.workers=8

      torchrun --no-python --nproc-per-node 8 mllm-embed train training/configs/mini-contrastive.yaml
    """
    from mllm_embed_training import ranks
    from mllm_embed_training.build import build_heldout, build_stage, save_result
    from mllm_embed_training.config import load_config
    from mllm_embed_training.run_files import REPORT
    from mllm_embed_training.trainer import train as run
    from mllm_embed_training.watch import explained

    config = load_config(recipe, set_)
    run_dir = Path(config.run_dir)
    with explained(config):
        with ranks.joined():
            run_dir.mkdir(parents=True, exist_ok=True)
            stage, start = build_stage(config, run_dir)
            heldout = build_heldout(config, stage, start)

            def measure(done: int) -> None:
                if heldout is not None and heldout.is_due(done, config.optim.steps) and heldout.measure(done):
                    save_result(stage, start, config, run_dir / "best")

            finished = run(config, stage, run_dir, start=start.fingerprint, after_step=measure)
            if ranks.rank() != 0:
                return
        if finished:
            save_result(stage, start, config, run_dir / "model")
    if not finished:
        typer.echo(f"stopped at a checkpoint; run the same command again to go on from {run_dir}", err=True)
        return
    typer.echo(f"{run_dir / 'model'} is ready; how it went: {run_dir / REPORT}")


def export(
    model: Annotated[str, typer.Argument(help="Model directory, e.g. RUN_DIR/model of a training run, or a hub name")],
    out: Annotated[Path, typer.Argument(help="Directory to make; must not exist")],
    name: Annotated[str | None, typer.Option(help="Model name in the API; default: the name of OUT")] = None,
    dtype: Annotated[Literal["bfloat16", "float16", "float32"], typer.Option(help="Type of the written weights")] = (
        "bfloat16"
    ),
    max_shard_mib: Annotated[int, typer.Option(min=1, help="Largest weight file, in MiB")] = 48,
) -> None:
    """Merge an adapter into its base and write one directory that serves everywhere, or refuse.

    Nothing is written unless the adapter moves the vectors of a fixed set of inputs, the merged model gives the
    unmerged model's vectors, and the written files give those again.

    Examples:

      mllm-embed export runs/mini-contrastive/model runs/mllm-embed-mini

      mllm-embed export runs/mine/model out/mine --dtype float32 --name mine-v2
    """
    from mllm_embed.model_dir import open_model_dir
    from mllm_embed_training.export import export as run

    done = run(open_model_dir(model), None, out, name=name or out.name, dtype=dtype, max_shard_mib=max_shard_mib)
    effect = "no adapter" if done.proof.adapter_effect is None else f"adapter effect {done.proof.adapter_effect:.4f}"
    typer.echo(
        f"{out}: {done.bytes / 2**20:.1f} MiB; merged cosine {done.proof.merged_cosine:.7f}; "
        f"{dtype} cosine {done.proof.rounded_cosine:.7f}; {effect}"
    )


def soup(
    models: Annotated[list[str], typer.Argument(help="Model directories or hub names, merged, tuned from one start")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to make; must not exist")],
    share: Annotated[
        list[float] | None, typer.Option(help="What a model weighs, once per model in their order; default: all equal")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name in the API; default: the name of OUT")] = None,
    dtype: Annotated[Literal["bfloat16", "float16", "float32"], typer.Option(help="Type of the written weights")] = (
        "bfloat16"
    ),
    max_shard_mib: Annotated[int, typer.Option(min=1, help="Largest weight file, in MiB")] = 48,
) -> None:
    """Average the weights of models that were tuned from one start, and write one directory that serves everywhere.

    A soup often keeps what each model is best at, at the price of one. Measure it: models without a common start have
    no useful mean, and only a score can tell.

    Examples:

      mllm-embed soup runs/a/merged runs/b/merged --out runs/soup

      mllm-embed soup runs/old runs/new --share 0.3 --share 0.7 --out out/mine --name mine-v2
    """
    from mllm_embed.model_dir import open_model_dir
    from mllm_embed_training.soup import soup as run

    done = run(
        [open_model_dir(model) for model in models],
        out,
        name=name or out.name,
        shares=share,
        dtype=dtype,
        max_shard_mib=max_shard_mib,
    )
    for model, part, cosine in zip(models, done.shares, done.cosines, strict=True):
        typer.echo(f"{part:.3f} of {model}: its vectors have a cosine of at least {cosine:.4f} with the soup's")
    typer.echo(f"{out}: {done.bytes / 2**20:.1f} MiB")
