"""Write the golden numbers from checkouts of the public code, or compare them with those on file.

    PYTHONPATH=training python -m parity --vlm2vec DIR --unime DIR --grad-cache DIR tests/training/parity/golden.npz

Runs in an environment of its own, described in docs/parity.md; none of it is needed to run the tests.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from parity.checkouts import Checkouts
from parity.encoder_numbers import Numbers, encoder_numbers
from parity.loss_numbers import loss_numbers
from parity.metric_numbers import metric_numbers
from parity.rank_numbers import rank_numbers
from parity.tiny_model import CONFIG

TOLERANCE = 1e-5
"""Largest difference of a number made again, relative to the largest of its array."""


def main() -> int:
    """Return 1 if --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm2vec", type=Path, required=True, help="checkout of TIGER-AI-Lab/VLM2Vec")
    parser.add_argument("--unime", type=Path, required=True, help="checkout of deepglint/UniME")
    parser.add_argument("--grad-cache", type=Path, required=True, help="checkout of luyug/GradCache")
    parser.add_argument("--check", action="store_true", help="write nothing, compare with the file")
    parser.add_argument("file", type=Path, help="where the numbers lie")
    options = parser.parse_args()
    for folder, file in ((options.vlm2vec, "src/loss.py"), (options.unime, "loss.py"), (options.grad_cache, "src")):
        if not (folder / file).exists():
            parser.error(f"{folder} is not the checkout that it should be: it has no {file}")
    if options.check and not options.file.exists():
        parser.error(f"there is nothing to compare with: {options.file} does not exist")
    checkouts = Checkouts(*(path.resolve() for path in (options.vlm2vec, options.unime, options.grad_cache)))
    made = {
        "config": np.array(json.dumps(CONFIG)),
        "made with": np.array(json.dumps(_versions(checkouts))),
        **encoder_numbers(checkouts),
        **loss_numbers(checkouts),
        **metric_numbers(checkouts),
        **rank_numbers(checkouts),
    }
    if options.check:
        return _compare(made, dict(np.load(options.file)))
    np.savez_compressed(options.file, **made)  # type: ignore[arg-type]  # numpy types its other keywords too
    _say(f"{options.file}: {len(made)} arrays, {options.file.stat().st_size:,} bytes")
    return 0


def _versions(checkouts: Checkouts) -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "numpy")} | checkouts.commits()


def _compare(made: Numbers, stored: Numbers) -> int:
    """Print what differs."""
    wrong = sorted(made.keys() ^ stored.keys())
    for name in sorted(made.keys() & stored.keys() - {"made with"}):
        new, old = made[name], stored[name]
        if new.dtype.kind in "US" or new.shape != old.shape:
            same = new.shape == old.shape and bool((new == old).all())
        else:
            scale = max(float(np.abs(old).max()), 1e-12)
            same = float(np.abs(new.astype(float) - old.astype(float)).max()) <= TOLERANCE * scale
        wrong += [] if same else [name]
    _say("\n".join(f"differs: {name}" for name in wrong) or f"all {len(made)} arrays are as stored")
    return 1 if wrong else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
