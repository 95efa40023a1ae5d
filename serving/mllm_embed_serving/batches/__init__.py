"""OpenAI's files and batches, for embeddings: work that is handed in as a file and survives restarts."""
