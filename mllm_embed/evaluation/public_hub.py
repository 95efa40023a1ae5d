"""Where a public data set lies: a local folder, or a data set of the hub that is downloaded first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mllm_embed.evaluation.data_folder import find_data
from mllm_embed.evaluation.eval_types import EvaluationError

HUB = "hub:"
_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Located:
    """A folder that is there, and what the set in it is called."""

    path: Path
    name: str


def locate(data: str) -> Located:
    """Return the folder of `data`: a path, or `hub:ORG/NAME`, perhaps with `@REVISION`.

    What was downloaded before is not downloaded again, also without a network; archives are not unpacked.

    Raises:
        EvaluationError: there is no such folder, or the hub does not give it: no network, no such set, no access.
    """
    if not data.startswith(HUB):
        path = find_data(Path(data))
        return Located(path, path.resolve().name)
    asked = _NAME.fullmatch(data.removeprefix(HUB))
    if asked is None:
        raise EvaluationError(f"a data set of the hub is {HUB}ORG/NAME, perhaps with @REVISION, but is {data!r}")
    return Located(_downloaded(asked["name"], asked["revision"]), asked["name"].partition("/")[2])


def _downloaded(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision))
    except Exception as error:  # the hub client raises many kinds; all mean the same to the caller
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EvaluationError(
            f"the data set {name} could not be had from the hub: {reason}; give --data DIR with its files"
        ) from error
