"""The library's own subcommands, one file each; `mllm_embed/cli.py` finds them."""
