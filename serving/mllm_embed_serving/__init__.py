"""Answers HTTP: the OpenAI-compatible embeddings API."""
