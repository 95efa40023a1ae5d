"""Everything that touches torch: loading, model inputs, pooling. Training and the transformers backend share it."""
