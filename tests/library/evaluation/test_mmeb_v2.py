"""MMEB-V2: 78 sets of three modalities in the places and schemas of their makers; clips are drawn as frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mllm_embed.evaluation import mmeb_v2_answers as answers
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError
from mllm_embed.evaluation.mmeb import SLICE_IN
from mllm_embed.evaluation.mmeb_v2 import DOCUMENT_SETS, NAMES
from mllm_embed.evaluation.mmeb_v2_video import VIDEO_SETS
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_sets import public_tasks
from mllm_embed.evaluation.runner import overall
from mllm_embed.types import EmbedInput, Image
from tests.library.evaluation.public import build, draw, scored, shown, stored, write_json, write_lines, write_parquet

pytestmark = pytest.mark.fast

FRAMES = Path("video-tasks/frames")
DATA = Path("video-tasks/data")


def clip(folder: Path, name: str, frames: int = 2) -> None:
    """A clip named c is frames c1.jpg, c2.jpg, ... in its folder."""
    draw(folder / FRAMES / name, *(f"{Path(name).name.partition('.')[0]}{i + 1}.jpg" for i in range(frames)))


def only(tasks: dict[str, EvalTask], name: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Of every query what is right, and what it sees."""
    (part,) = tasks[name].parts
    right, seen = {}, {}
    for query in part.queries:
        right[shown(query.item)] = [shown(part.candidates[place]) for place in query.truths]
        places = query.extras if part.shared == 0 else range(part.pool)
        seen[shown(query.item)] = [shown(part.candidates[place]) for place in places]
    return right, seen


def instructions(task: EvalTask) -> tuple[set[str | None], set[str | None]]:
    (part,) = task.parts
    return {query.item.instruction for query in part.queries}, {item.instruction for item in part.candidates}


# --- the table ---


def test_there_are_78_sets_in_three_modalities() -> None:
    assert len(NAMES) == len(set(NAMES)) == 78
    assert (len(VIDEO_SETS), sum(map(len, DOCUMENT_SETS.values()))) == (18, 24)
    kinds = [known.meta_task for known in VIDEO_SETS.values()]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "video classification": 5,
        "video QA": 5,
        "video retrieval": 5,
        "moment retrieval": 3,
    }
    assert {kind: len(sets) for kind, sets in DOCUMENT_SETS.items()} == {
        "ViDoRe-V1": 10,
        "ViDoRe-V2": 4,
        "VisRAG": 6,
        "VisDoc-OOD": 4,
    }


# --- classification ---


def test_classes_are_all_those_of_the_set(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(10)]
    write_lines(tmp_path / DATA / "breakfast.jsonl", [{"video_id": f"v{i}", "pos_text": names[i]} for i in range(10)])
    for i in range(10):
        clip(tmp_path, f"video_cls/Breakfast/v{i}")
    tasks = build("mmeb-v2", tmp_path)
    right, seen = only(tasks, "Breakfast")
    assert right["v31.jpg + v32.jpg"] == ["class 3"]
    assert seen["v31.jpg + v32.jpg"] == names
    asked, targets = instructions(tasks["Breakfast"])
    assert asked == {"Recognize the breakfast type that the person is cooking in the video."}
    assert targets == {None}


def test_classes_that_no_clip_has_must_be_listed(tmp_path: Path) -> None:
    write_lines(tmp_path / DATA / "hmdb51.jsonl", [{"video_id": "v", "pos_text": "class 3"}])
    clip(tmp_path, "video_cls/HMDB51/v")
    with pytest.raises(
        EvaluationError, match=r"hmdb51\.\* names 1 of 51 classes; list them all in video-tasks/labels/hmdb51\.txt"
    ):
        build("mmeb-v2", tmp_path)
    (tmp_path / "video-tasks" / "labels").mkdir()
    (tmp_path / "video-tasks" / "labels" / "hmdb51.txt").write_text("\n".join(f"class {i}" for i in range(51)) + "\n")
    assert build("mmeb-v2", tmp_path)["HMDB51"].parts[0].pool == 51


def test_something_something_lists_the_classes_of_each_clip(tmp_path: Path) -> None:
    rows = [
        {"video_id": 7, "pos_text": "b", "neg_text": ["a", "b", "c"]},
        {"video_id": 8, "pos_text": "c", "neg_text": ["c", "d"]},
    ]
    write_lines(tmp_path / DATA / "ssv2.jsonl", rows)
    clip(tmp_path, "video_cls/SSv2/7")
    clip(tmp_path, "video_cls/SSv2/8")
    right, seen = only(build("mmeb-v2", tmp_path), "SmthSmthV2")
    assert right == {"71.jpg + 72.jpg": ["b"], "81.jpg + 82.jpg": ["c"]}
    assert seen == {"71.jpg + 72.jpg": ["a", "b", "c"], "81.jpg + 82.jpg": ["c", "d"]}
    write_lines(tmp_path / DATA / "ssv2.jsonl", [rows[0] | {"pos_text": "x"}])
    with pytest.raises(EvaluationError, match="the class of 7, 'x', is not in neg_text"):
        build("mmeb-v2", tmp_path)
    write_lines(tmp_path / DATA / "ssv2.jsonl", [*[rows[0]] * 999, *[rows[1]] * 5])
    asked = [shown(query.item) for query in build("mmeb-v2", tmp_path)["SmthSmthV2"].parts[0].queries]
    assert (asked.count("71.jpg + 72.jpg"), asked.count("81.jpg + 82.jpg")) == (999, 1)  # the first 1,000 are the test


# --- retrieval ---

CAPTIONED: dict[str, tuple[str, Sequence[dict[str, Any]]]] = {
    "MSR-VTT": ("msr-vtt", [{"video_id": f"v{i}", "video": f"v{i}.mp4", "caption": f"text {i} "} for i in (1, 2)]),
    "MSVD": ("msvd", [{"video_id": f"v{i}", "video": "x", "caption": [f"text {i}", "other"]} for i in (1, 2)]),
    "DiDeMo": ("didemo", [{"video": f"test/v{i}.mp4", "caption": f"text {i}"} for i in (1, 2)]),
    "YouCook2": ("youcook2", [{"id": f"v{i}", "video_path": "x", "sentence": f"text {i}"} for i in (1, 2)]),
    "VATEX": ("vatex", [{"videoID": f"v{i}", "enCap": [f"text {i}", "other"]} for i in (1, 2)]),
}


@pytest.mark.parametrize("name", CAPTIONED)
def test_captions_find_their_clip_among_all(tmp_path: Path, name: str) -> None:
    file, rows = CAPTIONED[name]
    write_lines(tmp_path / DATA / f"{file}.jsonl", rows)
    for i in (1, 2):
        clip(tmp_path, f"video_ret/{name}/v{i}")
    tasks = build("mmeb-v2", tmp_path, limit=1)
    right, seen = only(tasks, name)
    ((text, found),) = right.items()
    number = text[-1]
    assert (text, found) == (f"text {number}", [f"v{number}1.jpg + v{number}2.jpg"])
    assert len(seen[text]) == 2  # a limit leaves out queries, not candidates
    assert instructions(tasks[name])[1] == {"Understand the content of the provided video."}


# --- questions ---


def test_questions_are_written_as_their_makers_do() -> None:
    mme = answers.video_mme({"question": "Who?", "options": ["A. Ann.", "B. Bob."], "answer": "B"})
    assert (mme.question, mme.answers, mme.right) == ("Who?\nA. Ann.\nB. Bob.", ["Ann", "Bob"], 1)
    options = {f"a{i}": f"option {i}" for i in range(5)}
    qa = answers.next_qa({"question": "why", "answer": 4, **options})
    assert qa.question.startswith("why\nOptions:\n(A) option 0\n(B) option 1")
    assert (qa.answers[qa.right], len(qa.answers)) == ("option 4", 5)
    ego = answers.ego_schema({"question": "What?", "option": ["A. Cook.", "B. Eat."], "answer": "0"})
    assert (ego.question, ego.answers, ego.right) == ("What?A. Cook. B. Eat.", ["Cook", "Eat"], 0)
    bench = answers.mv_bench({"question": "Which?", "candidates": ["red", "blue"], "answer": "blue"})
    assert bench.question == "Which?\nOptions:\n(A) red\n(B) blue"
    assert (bench.answers, bench.right) == (["(A) red", "(B) blue"], 1)
    yes = answers.activity_net_qa({"question": "is it", "answer": "yes"})
    assert (yes.question, yes.answers, yes.right) == ("is it? (A) yes; (B) no.", ("yes", "no"), 0)


ASKED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "Video-MME": (
        "video-mme.jsonl",
        "Video-MME/v",
        {"videoID": "v", "options": ["A. x.", "B. y."], "answer": "B"},
        "y",
    ),
    "NExTQA": ("nextqa.jsonl", "NExTQA/5", {"video": 5, "answer": 2, **{f"a{i}": f"o{i}" for i in range(5)}}, "o2"),
    "EgoSchema": (
        "egoschema.jsonl",
        "EgoSchema/v",
        {"video_idx": "v", "option": ["A. x.", "B. y."], "answer": "1"},
        "y",
    ),
    "MVBench": (
        "mvbench/count.json",
        "MVBench/count/v.mp4",
        {"video": "v.mp4", "candidates": ["1", "2"], "answer": "2"},
        "(B) 2",
    ),
    "ActivityNetQA": ("activitynetqa.jsonl", "ActivityNetQA/v_w", {"video_name": "w", "answer": "no"}, "no"),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_clip_with_a_question_finds_the_answer_among_its_own(tmp_path: Path, name: str) -> None:
    file, frames, row, answer = ASKED[name]
    write = write_json if file.endswith(".json") else write_lines
    write(tmp_path / DATA / file, [row | {"question": "what"}])
    clip(tmp_path, f"video_qa/{frames}")
    tasks = build("mmeb-v2", tmp_path)
    right, seen = only(tasks, name)
    ((question, found),) = right.items()
    assert question.startswith(f"{Path(frames).stem}1.jpg + {Path(frames).stem}2.jpg + what")
    assert found == [answer]
    assert len(seen[question]) == (5 if name == "NExTQA" else 2)
    (instruction,) = instructions(tasks[name])[0]
    assert instruction is not None
    assert instruction.endswith("Return only the exact text of your chosen answer. Question:")


def test_an_answer_that_is_none_is_named(tmp_path: Path) -> None:
    write_lines(
        tmp_path / DATA / "activitynetqa.jsonl", [{"question": "is it", "video_name": "w", "answer": "perhaps"}]
    )
    with pytest.raises(EvaluationError, match=r"activitynetqa\.\*: 'perhaps' is no answer to 'is it'"):
        build("mmeb-v2", tmp_path)


# --- moments ---


def test_a_moment_is_sought_among_clips_of_its_video(tmp_path: Path) -> None:
    rows = [{"query": "he falls", "video_path": "a/v1.mp4"}, {"query": "she runs", "video_path": "v2.mp4"}]
    write_lines(tmp_path / DATA / "qvhighlight.jsonl", rows)
    for video in ("v1", "v2"):
        for name in ("query", "positive_clip", "negative_clip_0", "negative_clip_1"):
            draw(tmp_path / FRAMES / "video_mret/QVHighlight" / video / name, f"{video}-{name}.jpg")
    tasks = build("mmeb-v2", tmp_path)
    right, seen = only(tasks, "QVHighlight")
    assert right["v1-query.jpg + he falls"] == ["v1-positive_clip.jpg"]
    assert sorted(seen["v2-query.jpg + she runs"]) == [
        "v2-negative_clip_0.jpg",
        "v2-negative_clip_1.jpg",
        "v2-positive_clip.jpg",
    ]
    draw(tmp_path / FRAMES / "video_mret/QVHighlight/v2/positive_too", "x.jpg")
    with pytest.raises(EvaluationError, match="QVHighlight/v2 has 2 positive clips, must have 1"):
        build("mmeb-v2", tmp_path)


def test_moment_seeker_asks_with_text_picture_or_clip(tmp_path: Path) -> None:
    root = tmp_path / FRAMES / "video_mret/MomentSeeker"
    clips = {name: f"videos/{name}.mp4" for name in ("p1", "p2", "n1", "given")}
    for name in clips:
        draw(root / "video_frames" / f"videos_{name}", f"{name}.jpg")
    draw(root, "query_shown.jpg")
    rows = [
        {
            "query": f"with {given or 'nothing'}",
            "positive_frames": [{"output_path": clips["p1"]}, {"output_path": clips["p2"]}],
            "negative_frames": [{"output_path": clips["n1"]}],
            "input_frames": given,
        }
        for given in ("", "shown.jpg", clips["given"])
    ]
    write_lines(tmp_path / DATA / "momentseeker.jsonl", rows)
    tasks = build("mmeb-v2", tmp_path)
    right, seen = only(tasks, "MomentSeeker")
    assert set(right) == {
        "with nothing",
        "query_shown.jpg + with shown.jpg",
        "given.jpg + with videos/given.mp4",
    }
    assert all(found == ["p1.jpg", "p2.jpg"] for found in right.values())
    assert all(found == ["p1.jpg", "p2.jpg", "n1.jpg"] for found in seen.values())
    asked, targets = instructions(tasks["MomentSeeker"])
    assert len(asked) == 3
    assert targets == {"Understand the content of the provided video clip."}


# --- documents, pictures, and all together ---


def write_all(folder: Path) -> None:
    """One small set of each modality; what finds what is given by angles in the tests."""
    row = {"qry_inst": "<|image_1|> Which?", "qry_text": "q", "qry_img_path": "GQA/a.jpg", "tgt_text": ["yes", "no"]}
    write_parquet(folder / "image-tasks/GQA/test-00000-of-00001.parquet", [row | {"tgt_img_path": ["", ""]}])
    write_parquet(
        folder / "image-tasks/DocVQA/test-00000-of-00001.parquet",
        [row | {"qry_img_path": "DocVQA/a.jpg", "tgt_img_path": ["", ""]}],
    )
    draw(folder / "image-tasks/GQA", "a.jpg")
    draw(folder / "image-tasks/DocVQA", "a.jpg")
    write_lines(folder / DATA / "msvd.jsonl", [{"video_id": f"v{i}", "caption": [f"text {i}"]} for i in (1, 2)])
    for i in (1, 2):
        clip(folder, f"video_ret/MSVD/v{i}")
    root = folder / "visdoc-tasks/data/tatdqa_test_beir"
    write_parquet(root / "queries/a.parquet", [{"query-id": 1, "query": "sum"}])
    write_parquet(root / "corpus/a.parquet", [{"corpus-id": i, "image": stored(f"page {i}")} for i in range(3)])
    write_parquet(root / "qrels/a.parquet", [{"query-id": 1, "corpus-id": i, "score": i} for i in (1, 2)])


def test_overall_is_the_mean_over_sets_and_each_modality_has_its_own(tmp_path: Path) -> None:
    write_all(tmp_path)
    folder = PublicFolder(tmp_path)
    tasks = {task.name: task for task in public_tasks("mmeb-v2", folder, None)}
    assert list(tasks) == ["DocVQA", "GQA", "MSVD", "ViDoRe_tatdqa"]
    assert len(folder.absent) == 74
    degrees = {
        "a.jpg + q": 0.0,
        "yes": 1,
        "no": 2,
        "text 1": 0,
        "v11.jpg + v12.jpg": 5,
        "text 2": 1,
        "v21.jpg + v22.jpg": 9,
    }
    results = scored(tasks, degrees | {"sum": 0, "page 1": 1, "page 0": 2, "page 2": 3})
    document = (1 + 2 / 2) / (2 + 1 / np.log2(3))  # grades 1 and 2 at the ranks 1 and 3
    assert results["ViDoRe_tatdqa"]["scores"]["ndcg5"] == pytest.approx(document, abs=1e-6)
    means = overall(results)
    assert means["groups"] == {
        "image": {"tasks": 2, "mean": 1},
        "video": {"tasks": 1, "mean": 0.5},
        "visdoc": {"tasks": 1, "mean": pytest.approx(document, abs=1e-6)},
    }
    assert means["mean_over_tasks"] == pytest.approx((1 + 1 + 0.5 + document) / 4, abs=1e-5)
    assert means[SLICE_IN] == 1
    assert set(means["meta_tasks"]) == {"VQA", "video retrieval", "ViDoRe-V1"}
    assert instructions(tasks["ViDoRe_tatdqa"])[0] == {"Find a document image that matches the given query:"}


def test_wanted_sets_only_are_read(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / DATA / "msvd.jsonl").write_text("broken")
    assert list(build("mmeb-v2", tmp_path, only=["GQA", "ViDoRe_tatdqa"])) == ["GQA", "ViDoRe_tatdqa"]
    with pytest.raises(EvaluationError) as caught:
        build("mmeb-v2", tmp_path, only=["MSVD", "MSR-VTT", "VisRAG_PlotQA"])
    message = str(caught.value)
    assert "video-tasks/data/msvd.jsonl cannot be read" in message
    assert "no video-tasks/data/msr-vtt.*, where MSR-VTT should be" in message
    assert "no visdoc-tasks/data/VisRAG-Ret-Test-PlotQA, where VisRAG_PlotQA should be" in message


def test_what_is_missing_of_any_modality_is_said_at_once(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "image-tasks/GQA/a.jpg").unlink()
    for frame in (tmp_path / FRAMES / "video_ret/MSVD/v2").iterdir():
        frame.unlink()
    (tmp_path / "visdoc-tasks/data/tatdqa_test_beir/corpus/a.parquet").write_bytes(b"PAR1")
    with pytest.raises(EvaluationError) as caught:
        build("mmeb-v2", tmp_path)
    message = str(caught.value)
    assert "no picture image-tasks/GQA/a.jpg" in message
    assert "no frames in video-tasks/frames/video_ret/MSVD/v2" in message
    assert "tatdqa_test_beir/corpus/a.parquet cannot be read" in message


def test_a_folder_without_any_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="has no set of MMEB-V2, such as image-tasks/ImageNet-1K"):
        build("mmeb-v2", tmp_path)


# --- frames ---


def frames_of(item: EmbedInput) -> list[str]:
    return [
        content.source.name
        for content in item.content
        if isinstance(content, Image) and isinstance(content.source, Path)
    ]


@pytest.mark.parametrize(
    ("there", "wanted", "used"),
    [(20, 8, [1, 3, 6, 9, 11, 14, 17, 20]), (20, 3, [1, 10, 20]), (5, 8, [1, 2, 3, 4, 5]), (12, 1, [1])],
)
def test_frames_are_spread_evenly_as_their_makers_do(tmp_path: Path, there: int, wanted: int, used: list[int]) -> None:
    """Places are linspace(0, n - 1, k), rounded down; frame 10 comes after frame 9."""
    write_lines(tmp_path / DATA / "msvd.jsonl", [{"video_id": "v", "caption": ["text"]}])
    clip(tmp_path, "video_ret/MSVD/v", there)
    (part,) = build("mmeb-v2", tmp_path, frames=wanted)["MSVD"].parts
    assert frames_of(part.candidates[0]) == [f"v{i}.jpg" for i in used]
