"""deploy/: what can be known without the tools that run it. Files parse, their parts fit, their commands exist."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mllm_embed.cli import LazyCommand, build
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def parse(arguments: list[str]) -> dict[str, Any]:
    """Parse the arguments of `mllm-embed serve` as the command itself does."""
    command = build().commands["serve"]
    assert isinstance(command, LazyCommand)
    options: dict[str, Any] = command.load().make_context("serve", list(arguments)).params
    return options


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_image_is_made_of_what_there_is() -> None:
    copied = [words.split()[:-1] for name, words in dockerfile() if name == "COPY"]
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists(), source
    text = (DEPLOY / "Dockerfile").read_text()
    for engine in ("cpu", "cuda"):
        assert (ROOT / "install" / f"linux-{engine}.txt").exists()
        assert f"ENGINE={engine}" in text
    packages = re.search(r"packages = \[(.*)\]", (ROOT / "pyproject.toml").read_text())
    assert packages is not None
    for package in re.findall(r'"(\w+)', packages[1]):
        assert f"COPY {package} " in text


def test_the_images_command_exists() -> None:
    steps = dict(dockerfile())
    program, command = json.loads(steps["ENTRYPOINT"])
    assert (program, command) == ("mllm-embed", "serve")
    options = parse(json.loads(steps["CMD"]))
    assert options["port"] == int(steps["EXPOSE"])
    assert str(options["batch_dir"]).startswith(steps["VOLUME"])
    assert dict(dockerfile())["USER"] != "root"


def test_compose() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert int(service["stop_grace_period"].removesuffix("s")) > ServerSettings().drain_timeout_s
        assert "MLLM_EMBED_API_KEY" in service["environment"]


def test_the_systemd_unit() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # names of systemd have capitals
    unit.read(DEPLOY / "mllm-embed.service")
    program, command, *arguments = unit["Service"]["ExecStart"].split()
    assert program.endswith("/bin/mllm-embed")
    assert command == "serve"
    assert int(unit["Service"]["TimeoutStopSec"]) > parse(arguments)["drain_timeout"]


def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed here")
    text = (DEPLOY / "mllm-embed.service").read_text()
    unit = tmp_path / "mllm-embed.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "mllm-embed" in line]) == (0, [])


def test_kubernetes() -> None:
    deployment, service, budget = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    options = parse(container["args"])
    (port,) = container["ports"]
    assert options["port"] == port["containerPort"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": port["name"]}
    assert container["livenessProbe"]["tcpSocket"]["port"] == port["name"]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > sleep + options["drain_timeout"]
    labels = pod["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"] == deployment["spec"]["selector"] == {"matchLabels": labels}
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes
    assert str(options["api_keys_file"]).startswith(mounts["keys"])
    assert str(options["cache_dir"]).startswith(mounts["cache"])
