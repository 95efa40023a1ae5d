"""The playground: multimodal search in the browser, over HTTP to any OpenAI-compatible embeddings server."""
