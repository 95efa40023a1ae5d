"""What `serve` prints when all is up: the URLs, and a command that can be pasted at once."""

from __future__ import annotations

import json
import shlex


def banner(model: str, api_url: str, playground_url: str | None, *, needs_key: bool) -> str:
    """Return the text.

    Args:
        model: the served model's name.
        api_url: where the API answers.
        playground_url: where the playground answers, if it runs.
        needs_key: whether requests must carry an API key; the key itself is not printed.
    """
    lines = ["", f"  API         {api_url}/v1   (model {model})"]
    if playground_url is not None:
        lines.append(f"  Playground  {playground_url}")
    return "\n".join(
        [*lines, "", "  Try it:", "", _curl(model, api_url, needs_key=needs_key), "", "  Ctrl-C stops everything.", ""]
    )


def _curl(model: str, api_url: str, *, needs_key: bool) -> str:
    body = json.dumps({"model": model, "input": ["a red square", "a photo of a cat"]})
    parts = [f"curl {api_url}/v1/embeddings", "-H 'content-type: application/json'"]
    if needs_key:
        parts.append('-H "authorization: Bearer $MLLM_EMBED_API_KEY"')
    return " \\\n  ".join([*parts, f"-d {shlex.quote(body)}"])
