"""`mllm-embed serve`."""

from __future__ import annotations

import os
import sys
from functools import partial

from mllm_embed_serving.logs import set_up
from mllm_embed_serving.options import ServeOptions, takes_options


@takes_options
def serve(options: ServeOptions) -> None:
    """Serve a model behind an OpenAI-compatible embeddings API.

    Starts the engine, prints where the API answers and a curl command to paste; Ctrl-C stops everything.

    Examples:
      mllm-embed serve --demo

      mllm-embed serve out/my-model --port 9000 --backend transformers

      mllm-embed serve Qwen/Qwen3-VL-Embedding-2B --precision bfloat16

      MLLM_EMBED_API_KEY=secret mllm-embed serve --host 0.0.0.0
    """
    # Here, since `serve --help` needs none of their packages.
    from rich.console import Console

    from mllm_embed_serving.engine import load_embedder
    from mllm_embed_serving.runner import DemoOptions, RunOptions, run

    settings = options.settings()
    set_up(options.log_level, options.log_format)
    load = partial(load_embedder, options.model, options.backend, settings, options.max_tokens)
    key = options.api_key[0] if options.api_key else None
    playground = DemoOptions(options.demo_host, options.demo_port, options.gallery, key) if options.demo else None
    run(RunOptions(options.model, load, settings, options.host, options.port, playground), Console())
    # Everything of ours has stopped; the interpreter's own teardown of torch and an engine would take seconds more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
