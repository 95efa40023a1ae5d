"""LlamaIndex's embedding for OpenAI-like servers."""

from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from support import KEY, MODEL, URL, report

client = OpenAILikeEmbedding(model_name=MODEL, api_base=f"{URL}/v1", api_key=KEY)
report(query=[client.get_query_embedding("a red circle"), *client.get_text_embedding_batch(["a blue square"])])
