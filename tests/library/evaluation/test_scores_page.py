"""Runs side by side on one Markdown page: what every reader must find there, and what must not stand side by side."""

from typing import Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.scores_page import markdown, scores_page
from tests.library.evaluation.test_report import report, result

pytestmark = pytest.mark.fast

Rows = list[list[str]]


def section(text: str, title: str) -> Rows:
    """The cells of the table under a title, its head first, without the line of dashes."""
    (body,) = (part for part in text.split("\n## ") if part.splitlines()[0].removeprefix("## ") == title)
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]


def titles(text: str) -> list[str]:
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def perturbed(clean: float, after: float) -> dict[str, Any]:
    lost = {"clean": clean, "perturbed": after, "drop": clean - after, "interval": [0.1, 0.3]}
    return {**result(after, meta="robustness"), "robustness": {**lost, "parts": {"blur": lost}}}


def in_languages(**hits: float) -> dict[str, Any]:
    parts = {language: result(hit1)["parts"]["noto"] for language, hit1 in hits.items()}
    found = {"ways": 2, "count": 200, "mean_rank_variance": 12345.6, "all_hit1": 0.125}
    return {**result(0.5, meta="multilingual"), "parts": parts, "instances": found}


def test_models_stand_side_by_side() -> None:
    one, other = report("one", x=result(0.5), y=result(0.25, meta="VQA")), report("other", x=result(0.75))
    table = section(markdown([one, other]), "Tasks")
    assert table[0] == ["task", "pool", "queries", "chance", "one", "other"]
    assert table[1] == ["x", "100", "40", "0.010", "0.500 ± 0.100", "0.750 ± 0.100"]
    assert table[2] == ["y", "100", "40", "0.010", "0.250 ± 0.100", "-"]


def test_a_mean_over_some_tasks_does_not_stand_beside_one_over_all() -> None:
    one = report("one", x=result(0.5), y=result(0.25), z=result(1.0, meta="VQA"))
    other = report("other", x=result(0.75), z=result(0.5, meta="VQA"))
    text = markdown([one, other])
    assert section(text, "Tasks")[4:] == [
        ["**mean over tasks**", "", "", "", "0.583", "-"],
        ["**mean over meta-tasks**", "", "", "", "0.688", "-"],
    ]
    assert section(text, "Models")[1:5] == [
        ["mean over tasks", "0.583", "-"],
        ["mean over meta-tasks", "0.688", "-"],
        ["retrieval (2)", "0.375", "-"],
        ["VQA (1)", "1.000", "0.500"],
    ]
    assert ["tasks", "3 of 3", "2 of 3"] in section(text, "Models")


def test_what_was_measured_stands_in_the_headline() -> None:
    one = report("one", x=result(0.5))
    one["model"] |= {"fingerprint": "0123456789abcdef0123", "template": "plain", "template_version": 1}
    one["model"] |= {"precision": "bfloat16", "backend": "transformers", "full_dimensions": 320}
    one["model"] |= {"max_pixels": 12544}
    one["settings"]["frames"] = 6
    facts = dict(section(markdown([one]), "Models"))
    assert facts["fingerprint"] == "0123456789abcdef"
    assert facts["prompt template"] == "plain 1"
    assert facts["precision"] == "bfloat16"
    assert facts["engine"] == "transformers"
    assert facts["width of vectors"] == "320"
    assert facts["most pixels of a picture"] == "12,544"
    assert facts["most frames of a clip"] == "6"


def test_what_a_model_does_not_tell_is_a_dash() -> None:
    facts = dict(section(markdown([report("one", x=result(0.5))]), "Models"))
    assert {
        facts[name] for name in ("prompt template", "precision", "most pixels of a picture", "width of vectors")
    } == {"-"}


def test_robustness_has_a_table_of_its_own_and_counts_in_no_mean() -> None:
    one = report("one", x=result(0.5), robust=perturbed(0.75, 0.25))
    other = report("other", x=result(0.25))
    text = markdown([one, other])
    assert [row[0] for row in section(text, "Tasks")] == [
        "task",
        "x",
        "**mean over tasks**",
        "**mean over meta-tasks**",
    ]
    assert section(text, "Tasks")[2][4:] == ["0.500", "0.250"]
    assert section(text, "Robustness") == [
        ["task", "perturbation", "one", "other"],
        ["robust", "all", "0.750 -> 0.250 (-0.500 ± 0.100)", "-"],
        ["robust", "blur", "0.750 -> 0.250 (-0.500 ± 0.100)", "-"],
    ]


def test_languages_have_a_table_of_their_own() -> None:
    text = markdown(
        [report("one", names=in_languages(de=0.5, tlh=0.125)), report("other", names=in_languages(de=1, tlh=0))]
    )
    assert section(text, "Languages") == [
        ["task", "language", "queries", "chance", "one", "other"],
        ["names", "de", "40", "0.010", "0.500", "1.000"],
        ["names", "tlh", "40", "0.010", "0.125", "0.000"],
    ]
    assert "By part and slice" not in titles(text)
    assert section(text, "The same thing, asked for in several ways")[1:] == [
        ["names", "mean rank variance", "2", "200", "12,346", "12,346"],
        ["names", "every way first", "2", "200", "0.125", "0.125"],
    ]


def test_details_show_every_part_and_slice_and_may_be_left_out() -> None:
    one = report("one", x=result(0.5), names=in_languages(de=0.5))
    one["diagnostics"]["tasks"] = {"x": {"hubness": 12.34}}
    assert ["x", "noto", "test_new", "100", "10", "0.010", "0.250"] in section(markdown([one]), "By part and slice")
    assert ["x", "12.3"] in section(markdown([one]), "Hubs")
    assert not {"By part and slice", "Hubs", "Languages"} & set(titles(markdown([one], details=False)))


def test_a_query_with_candidates_of_its_own_sees_from_to() -> None:
    assert section(markdown([report("one", x=result(0.5, pool=0))]), "Tasks")[1][:2] == ["x", "4 to 9"]


def test_diagnostics_stand_side_by_side() -> None:
    table = section(
        markdown([report("one", x=result(0.5)), report("other", x=result(0.5))]), "Diagnostics of the vectors"
    )
    assert ["modality gap", "0.500", "0.500"] in table
    assert ["cone, texts", "0.250", "0.250"] in table
    assert ["cone, pictures", "-", "-"] in table


def test_a_smoke_run_says_so() -> None:
    small = report("one", x=result(0.5))
    small["settings"]["limit_pool"] = 20
    assert "cut to 20" in markdown([small])


def test_tasks_that_failed_are_named() -> None:
    broken = report("one", x=result(0.5))
    broken["failed"] = {"y": "too long"}
    assert "Failed for one: y." in markdown([broken])


def test_a_cut_width_is_part_of_the_name() -> None:
    cut = report("one", x=result(0.5))
    cut["settings"]["dimensions"] = 64
    assert "one @64" in markdown([cut])


def test_the_published_page_tells_its_command_and_the_weak_points_of_the_data() -> None:
    text = scores_page([report("one", x=result(0.5))], command="mllm-embed eval report one.json --out scores.md")
    assert text.startswith("# Scores on mini-mmeb\n")
    assert "Written by `mllm-embed eval report one.json --out scores.md`" in text
    assert "Real-photo variety is modest" in text
    assert titles(text) == ["Tasks", "Models", "Diagnostics of the vectors", "By part and slice"]


def test_runs_that_cannot_be_compared_get_no_page() -> None:
    other = report("other", x=result(0.5))
    other["data"] = {"a.parquet": "2"}
    with pytest.raises(EvaluationError, match=r"different versions of a\.parquet"):
        scores_page([report("one", x=result(0.5)), other], command="")
    with pytest.raises(EvaluationError, match="at least one"):
        markdown([])
