from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Query
from mllm_embed.evaluation.mini_mmeb import TASK_NAMES, build_tasks
from mllm_embed.evaluation.pools import Selection
from mllm_embed.types import Image
from tests.library.evaluation.shown import Names, answers, asked, part, shown

pytestmark = pytest.mark.fast


def test_every_task_is_built_in_order(tasks: dict[str, EvalTask]) -> None:
    assert tuple(tasks) == TASK_NAMES
    assert list(dict.fromkeys(task.meta_task for task in tasks.values())) == [
        *("classification", "VQA", "retrieval", "text", "composed", "grounding"),
        *("documents", "video", "multilingual", "conditional", "robustness"),
    ]


@pytest.mark.parametrize("limit", [2, 5])
def test_a_smoke_run_has_every_task(data_path: Path, limit: int) -> None:
    tasks = build_tasks(DataFolder(data_path), Selection(pool_limit=limit))
    assert tuple(task.name for task in tasks) == TASK_NAMES


def test_no_duplicate_of_a_train_row_is_used(tasks: dict[str, EvalTask], names: Names) -> None:
    used = {shown(item, names) for task in tasks.values() for item in task.items()}
    assert not {name for name in used if name.endswith(":copy")}
    assert not used & {"copy", "icon11", "f4", "page of f4", "s3", "s2", "Page 4 of the tale.", "Page 5 of the tale."}


def test_emoji_pools_are_per_style_and_filled_with_train(tasks: dict[str, EvalTask], names: Names) -> None:
    task = tasks["emoji-t2i"]
    assert [one.name for one in task.parts] == ["fluent-3d", "fluent-flat", "noto", "openmoji-black", "openmoji-color"]
    noto = part(task, "noto")
    assert noto.pool == 25
    assert all(shown(item, names).startswith("noto:") for item in noto.candidates)
    assert asked(noto, "test_comp", names) == ["hand: dark skin tone", "woman cook"]
    assert "animal 3" in asked(noto, "train", names)


def test_every_picture_of_an_equal_name_is_right(tasks: dict[str, EvalTask], names: Names) -> None:
    noto = part(tasks["emoji-t2i"], "noto")
    assert answers(noto, names, "creature 0") == ["noto:new0", "noto:twin"]
    assert answers(noto, names, "creature 1") == ["noto:new1"]


def test_equal_texts_are_one_candidate(tasks: dict[str, EvalTask], names: Names) -> None:
    noto = part(tasks["emoji-i2t"], "noto")
    texts = [shown(item, names) for item in noto.candidates]
    assert len(texts) == len(set(texts)) == 24
    assert answers(noto, names, "noto:twin") == answers(noto, names, "noto:new0") == ["creature 0"]


def test_style_to_style(tasks: dict[str, EvalTask], names: Names) -> None:
    direction = part(tasks["emoji-i2i"], "openmoji-black -> noto")
    assert answers(direction, names, "openmoji-black:new2") == ["noto:new2"]


def test_tone_asks_with_the_untoned_picture_of_the_style(tasks: dict[str, EvalTask], names: Names) -> None:
    noto = part(tasks["emoji-tone"], "noto")
    assert asked(noto, "test", names) == [
        "noto:ear + the same, with medium dark skin tone",
        "noto:hand + the same, with dark skin tone",
    ]
    assert answers(noto, names, "noto:hand + the same, with dark skin tone") == ["noto:hand-dark"]


def test_tone_sees_its_own_family_beyond_the_pool(data_path: Path, names: Names) -> None:
    (task,) = build_tasks(DataFolder(data_path), Selection(pool_limit=2), ["emoji-tone"])
    for problem in task.parts:
        assert problem.pool == 2
        for query in problem.queries:
            extra = {shown(problem.candidates[place], names).split(":")[1] for place in query.extras}
            shared = {shown(item, names).split(":")[1] for item in problem.candidates[:2]}
            hand = "hand" in shown(query.item, names)
            family = {"hand", "hand-light", "hand-dark"} if hand else {"ear", "ear-medium-dark"}
            assert extra == family - shared


def test_groups_and_classes_are_words(tasks: dict[str, EvalTask], names: Names) -> None:
    groups = part(tasks["emoji-group"])
    assert [shown(item, names) for item in groups.candidates] == ["animals nature", "people body"]
    assert answers(groups, names, "noto:ear") == ["people body"]
    grocery = part(tasks["grocery-fine"])
    assert [shown(item, names) for item in grocery.candidates] == ["Kiwi", "Plum", "Red Apple"]
    assert answers(grocery, names, "g1") == ["Red Apple"]
    assert tasks["grocery-fine"].headline == "test_inst"
    assert asked(grocery, "test_inst", names) == ["g1", "g2"]
    assert asked(grocery, "test_new", names) == ["g3"]


def test_nlvr_chooses_between_true_and_false(tasks: dict[str, EvalTask], names: Names) -> None:
    scenes = part(tasks["nlvr"])
    assert [shown(item, names) for item in scenes.candidates] == ["true", "false"]
    assert answers(scenes, names, "n1 + There are 1 circles") == ["false"]
    assert len(scenes.queries) == 4


def test_icons_figures_and_stories(tasks: dict[str, EvalTask], names: Names) -> None:
    assert answers(part(tasks["icon-t2i"]), names, "icon 6, tag 6") == ["icon6", "icon6b"]
    assert part(tasks["figure-t2i"]).pool == 3
    assert answers(part(tasks["figure-i2t"]), names, "f1") == ["A graph of 1 lines."]
    assert answers(part(tasks["figure-caption-t2i"]), names, "Growth of 1 kinds.") == ["f1"]
    assert part(tasks["figure-caption-t2i"]).pool == 3  # a figure without a caption is a candidate too
    assert len(part(tasks["figure-caption-t2i"]).queries) == 2
    assert part(tasks["story-t2i"]).pool == 3
    assert answers(part(tasks["story-i2t"]), names, "s0") == ["Page 0 of the tale.", "Page 1 of the tale."]


def test_each_page_of_a_picture_finds_it_whatever_pages_lie_between(tasks: dict[str, EvalTask], names: Names) -> None:
    story = part(tasks["story-t2i"])
    for page, picture in ((0, "s0"), (1, "s0"), (2, "s1"), (6, "s4"), (30, "s4")):
        assert answers(story, names, f"Page {page} of the tale.") == [picture]


def test_subgroups_clothes_and_kinds_of_figures(tasks: dict[str, EvalTask], names: Names) -> None:
    subgroups = part(tasks["emoji-subgroup"])
    assert [shown(item, names) for item in subgroups.candidates] == ["animal new", "hand part", "person role"]
    assert answers(subgroups, names, "noto:woman-cook") == ["person role"]
    clothing = part(tasks["clothing"])
    assert [shown(item, names) for item in clothing.candidates] == ["hat", "t shirt"]
    assert asked(clothing, "test_inst", names) == ["c", "c3"]
    kinds = part(tasks["figure-kind"])
    assert [shown(item, names) for item in kinds.candidates] == ["graph", "map", "photo"]
    assert asked(kinds, "test", names) == ["f1", "f2"]  # f3 is of kind "other"


def test_gender_asks_with_the_other_picture_that_differs_in_nothing_else(
    tasks: dict[str, EvalTask], names: Names
) -> None:
    noto = part(tasks["emoji-gender"], "noto")
    assert asked(noto, "test", names) == ["noto:man-cook + the same, as a woman"]
    assert answers(noto, names, "noto:man-cook + the same, as a woman") == ["noto:woman-cook"]


def test_documents_are_found_by_the_text_of_their_figure(tasks: dict[str, EvalTask], names: Names) -> None:
    pages = part(tasks["doc-t2i"])
    assert answers(pages, names, "A graph of 1 lines.") == ["page of f1"]
    assert pages.queries[0].item.instruction == "Find the document page that answers this."
    assert asked(pages, "train", names) == ["A graph of 0 lines."]


def test_charts_are_asked_for_their_mark_and_their_axes(tasks: dict[str, EvalTask], names: Names) -> None:
    charts = part(tasks["chart-mark"])
    assert [shown(item, names) for item in charts.candidates] == [
        *("area", "bar", "count", "date 0", "date 1", "date 2", "line", "point"),
    ]
    assert answers(charts, names, "v1 + Which mark is drawn?") == ["line", "point"]
    assert answers(charts, names, "v0 + What is on the x axis?") == ["date 0"]
    assert answers(charts, names, "v0 + What is on the y axis?") == ["count"]
    assert len(asked(charts, "x", names)) == 2


def test_instructions_follow_the_role(tasks: dict[str, EvalTask]) -> None:
    for task in tasks.values():
        for problem in task.parts:
            assert {item.instruction for item in problem.candidates} == {"Represent the user's input."}
            instructions = {query.item.instruction for query in problem.queries}
            assert len(instructions) == (2 if task.name == "sprite-condition" else 1)
    asked_with: Query = tasks["nlvr"].parts[0].queries[0]
    assert asked_with.item.instruction == "Answer the question about the picture."
    assert isinstance(asked_with.item.content[0], Image)


def test_train_queries_are_few(data_path: Path, names: Names) -> None:
    (task,) = build_tasks(DataFolder(data_path), Selection(train_queries=3), ["emoji-i2i"])
    assert len(asked(part(task, "noto -> fluent-3d"), "train", names)) == 3


def test_an_unknown_task_is_named(data_path: Path) -> None:
    with pytest.raises(EvaluationError, match="one is 'emoji-x'"):
        build_tasks(DataFolder(data_path), Selection(), ["emoji-x"])


def test_all_missing_files_and_columns_are_listed_at_once(make_data: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data")
    (folder / "icons.parquet").unlink()
    (folder / "photos.parquet").write_bytes(b"PAR1 truncated")
    table = pq.read_table(folder / "nlvr.parquet").drop_columns(["sentence"])
    pq.write_table(table, folder / "nlvr.parquet")
    with pytest.raises(EvaluationError) as caught:
        build_tasks(DataFolder(folder), Selection())
    message = str(caught.value)
    assert "no file icons.parquet" in message
    assert "photos.parquet is not readable parquet" in message
    assert "nlvr.parquet lacks sentence" in message


def test_a_split_without_rows_is_named(data_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no 'hidden' rows for nlvr"):
        build_tasks(DataFolder(data_path), Selection(prefix="hidden"), ["nlvr"])
