"""What keeps the memory of long CPU runs small is set before torch first multiplies, and never against the user."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast
NAME = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.mark.parametrize(("given", "found"), [(None, "64"), ("7", "7")])
def test_onednn_keeps_few_shapes_unless_the_user_says_otherwise(given: str | None, found: str) -> None:
    script = f"import sys, os, mllm_embed_training; print(os.environ[{NAME!r}], 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != NAME} | ({NAME: given} if given else {})
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.split() == [found, "False"]
