"""Voyage's package: texts, a picture, a text, and both; it sends WebP data URIs and explicit nulls."""

import base64
import io

import PIL.Image
import voyageai
from support import KEY, MODEL, PICTURE, URL, report

client = voyageai.Client(api_key=KEY, base_url=f"{URL}/v1", max_retries=0)
image = PIL.Image.open(io.BytesIO(base64.b64decode(PICTURE.partition(",")[2])))
queries = client.multimodal_embed([["a red circle"], ["a blue square"]], model=MODEL, input_type="query")
documents = client.multimodal_embed([[image], ["the same in blue", image]], model=MODEL)
texts = client.embed(["a red circle", "a blue square"], model=MODEL, input_type="query", output_dimension=64)
refusal = "none"
try:
    client.multimodal_embed([["a"]], model="other")
except voyageai.error.VoyageError as error:
    refusal = str(error)
report(
    texts=texts.embeddings,
    query=queries.embeddings,
    lossy=documents.embeddings,
    pixels=documents.image_pixels,
    refusal=refusal,
)
