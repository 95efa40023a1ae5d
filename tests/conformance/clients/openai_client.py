"""OpenAI's package at another major version than the one beside the server."""

from openai import OpenAI
from support import KEY, MODEL, URL, report

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
answer = client.embeddings.create(model=MODEL, input=["a red circle", "a blue square"])
report(query=[item.embedding for item in answer.data])
