"""The calls that reproduce what is on screen, ready to paste: `curl` for the query's vector, Python for the ranking."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from mllm_embed_demo.client import WireItem, request_body
from mllm_embed_demo.index import GALLERY_INSTRUCTION

if TYPE_CHECKING:
    from mllm_embed_demo.search import Query, Result

_IMAGE = "@IMAGE@"
"""Stands for the picture until the rest is escaped; a user's text cannot imitate it, for JSON escapes its quotes."""


def curl(result: Result, api_url: str, playground_url: str, *, key: bool) -> str:
    """Return a shell command that prints the query's vector.

    Args:
        result: what is on screen.
        api_url: the embeddings server.
        playground_url: where the query's picture can be fetched.
        key: whether the server wants a key; the command reads it from `OPENAI_API_KEY`.
    """
    query = result.query
    body = request_body(
        result.index.card.name, [_item(query)], instruction=query.instruction, dimensions=query.dimensions
    )
    text = json.dumps(body, indent=2, ensure_ascii=False)
    head = f"curl -s {shlex.quote(api_url + '/v1/embeddings')} \\\n  -H 'Content-Type: application/json' \\\n"
    if key:
        head += '  -H "Authorization: Bearer $OPENAI_API_KEY" \\\n'
    if query.picture is None:
        return head + f"  -d {shlex.quote(text)}"
    fetch = f"curl -sf {shlex.quote(f'{playground_url}/pictures/{query.picture.key}')} | base64 | tr -d '\\n'"
    document = re.sub(r"([\\$`])", r"\\\1", text).replace(
        f'"image": "{_IMAGE}"', f'"image": "data:{query.picture.mime};base64,$IMAGE"'
    )
    return f"IMAGE=$({fetch})\n{head}  --data-binary @- <<JSON\n{document}\nJSON"


def python(result: Result, api_url: str, playground_url: str, *, key: bool, shown: int) -> str:
    """Return a script that prints the first `shown` scores and titles, as on screen; arguments as for `curl`."""
    query = result.query
    keywords = [f"model={result.index.card.name!r}", "input=[item]"]
    if query.dimensions is not None:
        keywords.append(f"dimensions={query.dimensions}")
    keywords.append('extra_body={"instruction": instruction}')
    hits = result.hits[:shown]
    modules = "base64\nimport os" if key else "base64"
    titles = "".join(f"    {hit.picture.key!r}: {hit.picture.title!r},\n" for hit in hits)
    return f"""\
# pip install openai numpy
import {modules}
import urllib.request

import numpy as np
from openai import OpenAI

client = OpenAI(base_url={api_url + "/v1"!r}, api_key={'os.environ["OPENAI_API_KEY"]' if key else '"none"'})


def picture(key):
    with urllib.request.urlopen({playground_url + "/pictures/"!r} + key) as answer:
        return f"data:{{answer.headers['Content-Type']}};base64," + base64.b64encode(answer.read()).decode()


def embed(item, instruction):
    answer = client.embeddings.create(
        {", ".join(keywords)}
    )
    return np.array(answer.data[0].embedding)


query = embed({_python_item(query)}, {query.instruction!r})
shown = {{
{titles}}}
for key, title in shown.items():
    score = embed({{"image": picture(key)}}, {GALLERY_INSTRUCTION!r}) @ query
    print(f"{{score:.3f}}  {{title}}")
"""


def _item(query: Query) -> WireItem:
    if query.picture is None:
        return query.text
    return {"text": query.text, "image": _IMAGE} if query.text else {"image": _IMAGE}


def _python_item(query: Query) -> str:
    if query.picture is None:
        return repr(query.text)
    fields: list[tuple[str, Any]] = [("text", repr(query.text))] if query.text else []
    fields.append(("image", f"picture({query.picture.key!r})"))
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields) + "}"
