from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mllm_embed.backends

ENGINE_SITE = Path(mllm_embed.backends.__file__).parent / "_engine_site"


def run(code: str, **env: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_can_be_used_after_the_workaround() -> None:
    code = (
        "from mllm_embed.modeling import torch_compat; torch_compat.apply(); torch_compat.apply()\n"
        "import torch\n"
        "from torchvision.transforms.v2 import functional\n"
        "print(functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape)"
    )
    assert "4, 4" in run(code)


def test_engine_processes_get_it_through_their_path() -> None:
    """As in a process that vLLM spawns: nothing of ours is imported by the code that runs there."""
    code = "import torchvision, sys; print('mllm_embed.modeling.torch_compat' in sys.modules)"
    assert run(code, PYTHONPATH=str(ENGINE_SITE)).strip() == "True"


def test_other_processes_on_that_path_load_no_torch() -> None:
    assert run("import sys; print('torch' in sys.modules)", PYTHONPATH=str(ENGINE_SITE)).strip() == "False"


def test_the_machines_own_sitecustomize_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('theirs')\n", encoding="utf-8")
    assert run("", PYTHONPATH=f"{ENGINE_SITE}:{tmp_path}").strip() == "theirs"


@pytest.mark.parametrize(("name", "printed"), [("EngineCore_DP0", "True"), ("theirs", "True True")])
def test_only_processes_of_vllm_forget_the_script_that_they_were_spawned_from(
    name: str, printed: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, os\n"
        f"os.environ['PYTHONPATH'] = {str(ENGINE_SITE)!r}\n"
        "print(True, end=' ', flush=True)\n"
        "if __name__ == '__main__':\n"
        f"    child = multiprocessing.get_context('spawn').Process(target=print, args=('',), name={name!r})\n"
        "    child.start()\n"
        "    child.join()\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed
