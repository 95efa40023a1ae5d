"""LangChain's OpenAIEmbeddings, told to send text: by default it sends the ids of OpenAI's own tokenizer."""

from langchain_openai import OpenAIEmbeddings
from support import KEY, MODEL, URL, report

client = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key=KEY, model=MODEL, check_embedding_ctx_length=False)
report(query=[client.embed_query("a red circle"), *client.embed_documents(["a blue square"])])
