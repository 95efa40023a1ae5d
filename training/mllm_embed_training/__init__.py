"""Makes checkpoints: from-scratch LVLM training, contrastive LoRA tuning, export."""

import os

# oneDNN keeps what it made for the last 1,024 shapes that it met: with batches of ever new lengths a run on the CPU
# grew to 22 GiB. It reads the limit when torch first multiplies.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
