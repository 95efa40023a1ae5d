"""Universal multimodal embeddings: one vector space for text, images and any mix of them, steered by an instruction."""

__version__ = "0.1.0"
