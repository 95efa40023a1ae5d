"""Rerank and score: how similar a query is to documents, by the cosine of their vectors; pictures count like texts.

`/v1/rerank` answers Jina's and Voyage's clients with one object that holds the fields of both; `/v2/rerank` is
Cohere's; `/v1/score` is vLLM's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllm_embed.tasks import get_task
from mllm_embed.types import Embedding, EmbedInput
from mllm_embed_serving import fields
from mllm_embed_serving.content import ItemReader
from mllm_embed_serving.errors import InvalidParameter
from mllm_embed_serving.schemas.common import (
    EmbeddingRequest,
    Items,
    array_items,
    check_count,
    only_one,
    read_items,
    read_task,
)
from mllm_embed_serving.settings import ServerSettings

_NAMES = {"queries": ("text_1", "data_1", "queries"), "documents": ("text_2", "data_2", "documents")}
"""The names of the two sides of a score request, in the order in which vLLM introduced them."""


@dataclass(frozen=True, kw_only=True)
class RerankRequest:
    """A checked request.

    Attributes:
        wanted: the query, then the documents, each with its own instruction.
        paths: where each stands in the request, for messages.
        top: how many results to return.
        return_documents: echo the documents in the results.
    """

    wanted: EmbeddingRequest
    paths: tuple[str, ...]
    top: int
    return_documents: bool


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """A checked request: one query for all documents, or as many queries as documents.

    Attributes:
        wanted: the queries, then the documents, each with its own instruction.
        paths: where each stands in the request, for messages.
        queries: how many queries there are.
    """

    wanted: EmbeddingRequest
    paths: tuple[str, ...]
    queries: int


def rerank_items(body: dict[str, Any], max_items: int) -> Items:
    """Find the documents of a rerank request.

    Raises:
        InvalidParameter: absent, empty, or more than `max_items`.
    """
    items = array_items(body.get("documents"), "documents")
    check_count(items, max_items)
    return items


def parse_rerank(body: dict[str, Any], items: Items, reader: ItemReader, settings: ServerSettings) -> RerankRequest:
    """Check a rerank request.

    Raises:
        InvalidParameter: a field is of a wrong type, out of range, or not supported.
        InputError: a document is refused, with its index.
    """
    if body.get("query") is None:
        raise InvalidParameter("is required", param="query")
    if body.get("max_tokens_per_doc") is not None:
        raise InvalidParameter(
            "is not supported: documents are cut at the model's own limit", param="max_tokens_per_doc"
        )
    if body.get("top_n") is not None and body.get("top_k") is not None:
        raise InvalidParameter("give either top_n or top_k, not both", param="top_k")
    name = "top_k" if body.get("top_n") is None else "top_n"
    top = fields.positive_integer(body.get(name), name)
    sides = _two_sides(Items((body["query"],), ("query",), "query"), items, reader, settings, body)
    return RerankRequest(
        wanted=EmbeddingRequest(inputs=sides, truncate="end"),
        paths=("query", *items.paths),
        top=len(items.values) if top is None else min(top, len(items.values)),
        return_documents=fields.boolean(body.get("return_documents"), "return_documents", default=False),
    )


def score_items(body: dict[str, Any], side: str, max_items: int) -> Items:
    """Find one side of a score request: `queries` or `documents`, under any of its names.

    Raises:
        InvalidParameter: absent, given twice, empty, or more than `max_items`.
    """
    name = only_one(body, _NAMES[side], _NAMES[side][-1])
    value = body[name]
    items = array_items(value, name) if isinstance(value, list) else Items((value,), (name,), name)
    check_count(items, max_items)
    return items


def parse_score(
    body: dict[str, Any], queries: Items, documents: Items, reader: ItemReader, settings: ServerSettings
) -> ScoreRequest:
    """Check a score request.

    Raises:
        InvalidParameter: a field is of a wrong type, or neither one query nor as many as documents are given.
        InputError: an item is refused, with its index.
    """
    if len(queries.values) not in (1, len(documents.values)):
        raise InvalidParameter(
            f"must be one, or as many as the {len(documents.values)} of {documents.field}, "
            f"but are {len(queries.values)}",
            param=queries.field,
        )
    return ScoreRequest(
        wanted=EmbeddingRequest(inputs=_two_sides(queries, documents, reader, settings, body)),
        paths=(*queries.paths, *documents.paths),
        queries=len(queries.values),
    )


def cosine(one: Embedding, other: Embedding) -> float:
    """Return the cosine of two unit vectors."""
    return float(one.vector @ other.vector)


def ranked(asked: RerankRequest, embeddings: Sequence[Embedding], items: Items) -> list[dict[str, Any]]:
    """Return the best documents, best first; equal ones keep their order."""
    query, *documents = embeddings
    scores = [cosine(query, document) for document in documents]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: asked.top]
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in order]
    if asked.return_documents:
        for result in results:
            value = items.values[result["index"]]
            result["document"] = {"text": value} if isinstance(value, str) else value
    return results


def jina_body(model: str, results: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Return the answer of /v1/rerank: `results` for Jina's clients, `data` for Voyage's."""
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    return {"object": "list", "model": model, "results": results, "data": results, "usage": usage}


def cohere_body(request_id: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of /v2/rerank."""
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return {"id": request_id, "results": results, "meta": meta}


def scores(asked: ScoreRequest, embeddings: Sequence[Embedding]) -> list[float]:
    """Return the cosine of every document and its query."""
    queries, documents = embeddings[: asked.queries], embeddings[asked.queries :]
    if len(queries) == 1:
        queries = [queries[0]] * len(documents)
    return [cosine(query, document) for query, document in zip(queries, documents, strict=True)]


def score_body(request_id: str, created: int, model: str, scores: Sequence[float], tokens: int) -> dict[str, Any]:
    """Return the answer of /v1/score."""
    return {
        "id": request_id,
        "object": "list",
        "created": created,
        "model": model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _two_sides(
    queries: Items, documents: Items, reader: ItemReader, settings: ServerSettings, body: dict[str, Any]
) -> tuple[EmbedInput, ...]:
    """Read queries, then documents, and give each the instruction of its side; one of its own wins."""
    name, instruction = read_task(body, settings)
    task = get_task(name)
    sides = Items(queries.values + documents.values, queries.paths + documents.paths, documents.field)
    count = len(queries.values)
    return tuple(
        item
        if item.instruction is not None
        else replace(item, instruction=(instruction or task.query) if index < count else task.target)
        for index, item in enumerate(read_items(sides, reader.item, settings))
    )
