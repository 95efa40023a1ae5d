"""Load for a running server, and what it makes of it: `mllm-embed bench serve`."""
