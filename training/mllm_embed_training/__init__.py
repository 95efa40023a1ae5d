"""Makes checkpoints: from-scratch LVLM training, contrastive LoRA tuning, export."""
