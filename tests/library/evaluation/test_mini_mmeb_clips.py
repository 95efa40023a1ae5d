import io
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pyarrow.parquet as pq
import pytest

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError
from mllm_embed.evaluation.mini_mmeb import build_tasks
from mllm_embed.evaluation.pools import Selection
from mllm_embed.types import EmbedInput, Image, Text
from tests.library.evaluation.conftest import strip, write_table
from tests.library.evaluation.shown import part

pytestmark = pytest.mark.fast

MAN_RED = "a man with dark skin, wearing red pants, walking, facing left"
MAN_TEAL = "a man with dark skin, wearing teal pants, walking, facing left"
WOMAN_RED = "a woman with dark skin, wearing red pants, walking, facing left"
STRIPS = {strip("1 red pants"): "man red", strip("1 teal pants"): "man teal", strip("2 red pants"): "woman red"}


def clip(item: EmbedInput) -> str:
    """Name a clip by its frames, which must be those of the strip in order."""
    frames = [content.source for content in item.content if isinstance(content, Image)]
    assert all(isinstance(frame, PIL.Image.Image) for frame in frames)
    pixels = [frame.tobytes() for frame in frames]  # type: ignore[union-attr]
    for data, name in STRIPS.items():
        whole = PIL.Image.frombytes("RGBA", (96, 16), _raw(data))
        if pixels == [whole.crop((16 * i, 0, 16 * i + 16, 16)).tobytes() for i in range(6)]:
            return name
    raise AssertionError("no such clip")


def _raw(data: bytes) -> bytes:
    return PIL.Image.open(io.BytesIO(data)).tobytes()


def text(item: EmbedInput) -> str:
    return next(content.text for content in item.content if isinstance(content, Text))


def test_captions_find_clips_and_equal_clips_are_one_candidate(tasks: dict[str, EvalTask]) -> None:
    problem = part(tasks["clip-t2v"])
    found = {text(q.item): [clip(problem.candidates[place]) for place in q.truths] for q in problem.queries}
    assert found == {MAN_RED: ["man red"], MAN_TEAL: ["man teal"], WOMAN_RED: ["woman red"]}
    assert problem.pool == 3


def test_clips_find_captions(tasks: dict[str, EvalTask]) -> None:
    problem = part(tasks["clip-v2t"])
    found = {clip(q.item): [text(problem.candidates[place]) for place in q.truths] for q in problem.queries}
    assert found == {"man red": [MAN_RED], "man teal": [MAN_TEAL], "woman red": [WOMAN_RED]}


def test_an_edit_that_nobody_sees_is_not_asked(tasks: dict[str, EvalTask]) -> None:
    problem = part(tasks["clip-edit"])
    (query,) = problem.queries
    assert (clip(query.item), text(query.item)) == ("man red", "the same, wearing teal pants")
    assert [clip(problem.candidates[place]) for place in query.truths] == ["man teal"]
    assert {clip(item) for item in problem.candidates} == {"man red", "man teal", "woman red"}


def test_actions_are_those_of_all_clips(tasks: dict[str, EvalTask]) -> None:
    problem = part(tasks["clip-action"])
    assert [text(item) for item in problem.candidates] == ["slashing", "walking"]
    assert {query.truths for query in problem.queries} == {(1,)}
    assert len(problem.queries) == 4


def test_a_strip_that_cannot_be_cut_is_named(make_data: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data")
    rows = pq.read_table(folder / "lpc_clips.parquet").to_pylist()
    rows[1]["frames"] = 7
    write_table(folder, "lpc_clips", rows)
    with pytest.raises(EvaluationError, match="clip k1 must be 7 frames of equal width, but is 96 px wide"):
        build_tasks(DataFolder(folder), Selection(), ["clip-t2v"])
