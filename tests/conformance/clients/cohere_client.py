"""Cohere's package: texts, a picture, both in one input, bytes, and rerank."""

import cohere
from support import KEY, MODEL, PICTURE, URL, report

client = cohere.ClientV2(api_key=KEY, base_url=URL)
texts = client.embed(
    model=MODEL, texts=["a red circle", "a blue square"], input_type="search_query", embedding_types=["float", "int8"]
)
picture = client.embed(model=MODEL, images=[PICTURE], input_type="image", embedding_types=["float"])
content = [{"type": "text", "text": "the same in blue"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
mixed = client.embed(
    model=MODEL, inputs=[{"content": content}], input_type="search_document", embedding_types=["float"]
)
ranked = client.rerank(model=MODEL, query="a red circle", documents=["a blue square", "a red circle"])
refusal = "none"
try:
    client.embed(model="other", texts=["a"], input_type="search_query")
except cohere.errors.NotFoundError as error:
    refusal = str(error.body["message"])
report(
    query=texts.embeddings.float_,
    bytes=texts.embeddings.int8,
    document=[*picture.embeddings.float_, *mixed.embeddings.float_],
    ranked=[result.index for result in ranked.results],
    refusal=refusal,
)
