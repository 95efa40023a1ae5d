"""LiteLLM's routes: OpenAI's, Jina's with bare base64, Voyage's, Infinity's, and Cohere's rerank."""

import litellm
from support import KEY, MODEL, PICTURE, URL, report

texts = ["a red circle", "a blue square"]
there = {"api_base": f"{URL}/v1", "api_key": KEY}
openai = litellm.embedding(model=f"openai/{MODEL}", input=texts, **there)
jina = litellm.embedding(model=f"jina_ai/{MODEL}", input=[*texts, PICTURE], **there)
voyage = litellm.embedding(model=f"voyage/{MODEL}", input=texts, **there)
infinity = litellm.embedding(model=f"infinity/{MODEL}", input=texts, dimensions=64, **there)
ranked = litellm.rerank(
    model=f"cohere/{MODEL}", query=texts[0], documents=texts[::-1], api_base=URL, api_key=KEY, return_documents=False
)
report(
    query=[item["embedding"] for item in openai.data],
    jina=[item["embedding"] for item in jina.data],
    voyage=[item["embedding"] for item in voyage.data],
    infinity=[item["embedding"] for item in infinity.data],
    ranked=[result["index"] for result in ranked.results],
)
