"""The 18 video sets of MMEB-V2: where each lies, what a record must have, how it is asked.

Records are those of a set's test split, `video-tasks/data/NAME.jsonl` or `.parquet`; clips lie in `video-tasks/frames`,
a folder of pictures each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from mllm_embed.evaluation import mmeb_v2_answers as answers
from mllm_embed.evaluation import mmeb_v2_clips as clips
from mllm_embed.evaluation.eval_types import Part
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_readers import Record

_CLASS, _QA, _RETRIEVAL, _MOMENT = "video classification", "video QA", "video retrieval", "moment retrieval"
_ANSWER = (
    "Given a video and a question, select the most accurate answer from the provided candidates. "
    "Return only the exact text of your chosen answer. Question:"
)
_MOMENT_QUERY = "Find the clip that corresponds to the described scene in the given video:"


@dataclass(frozen=True, slots=True)
class VideoSet:
    """One set of clips.

    Attributes:
        meta_task: its kind of task.
        records: pattern of its files in `video-tasks/data`; of several, each name is the `subset` of its records.
        frames: folder of its clips in `video-tasks/frames`.
        fields: that every record must have.
        build: records -> queries over candidates.
        instruction: of queries.
        most: only so many records, the first of the file, are used; None uses all.
    """

    meta_task: str
    records: str
    frames: str
    fields: tuple[str, ...]
    build: clips.Build
    instruction: str = ""
    most: int | None = None


def _field(name: str) -> clips.Name:
    return lambda row: str(row[name])


def _first(name: str) -> clips.Name:
    return lambda row: str(row[name][0])


def _stem(name: str) -> clips.Name:
    return lambda row: PurePosixPath(row[name]).stem


def _classes(records: str, frames: str, count: int, instruction: str) -> VideoSet:
    build = clips.among_all_classes(_field("video_id"), count=count)
    return VideoSet(_CLASS, records, f"video_cls/{frames}", ("video_id", "pos_text"), build, instruction)


def _questions(records: str, frames: str, fields: tuple[str, ...], build: clips.Build) -> VideoSet:
    return VideoSet(_QA, records, f"video_qa/{frames}", ("question", "answer", *fields), build, _ANSWER)


def _retrieval(records: str, frames: str, fields: tuple[str, str], build: clips.Build, instruction: str) -> VideoSet:
    return VideoSet(_RETRIEVAL, records, f"video_ret/{frames}", fields, build, instruction)


def _moments(records: str, frames: str) -> VideoSet:
    build = clips.among_clips_of_the_video(_stem("video_path"))
    return VideoSet(_MOMENT, records, f"video_mret/{frames}", ("query", "video_path"), build, _MOMENT_QUERY)


VIDEO_SETS = {
    "K700": _classes("k700.*", "K700", 700, "Recognize the category of the video content."),
    "SmthSmthV2": VideoSet(
        _CLASS,
        "ssv2.*",
        "video_cls/SSv2",
        ("video_id", "pos_text", "neg_text"),
        clips.among_listed_classes(_field("video_id")),
        "What actions or object interactions are being performed by the person in the video?",
        most=1000,
    ),
    "HMDB51": _classes(
        "hmdb51.*", "HMDB51", 51, "What actions or objects interactions are the person in the video doing?"
    ),
    "UCF101": _classes(
        "ucf101.*", "UCF101", 101, "What activities or sports are being performed by the person in the video?"
    ),
    "Breakfast": _classes(
        "breakfast.*", "Breakfast", 10, "Recognize the breakfast type that the person is cooking in the video."
    ),
    "MVBench": _questions(
        "mvbench/*",
        "MVBench",
        ("video", "candidates"),
        clips.among_answers(lambda row: f"{row['subset']}/{row['video']}", answers.mv_bench),
    ),
    "Video-MME": _questions(
        "video-mme.*", "Video-MME", ("videoID", "options"), clips.among_answers(_field("videoID"), answers.video_mme)
    ),
    "NExTQA": _questions(
        "nextqa.*",
        "NExTQA",
        ("video", "a0", "a1", "a2", "a3", "a4"),
        clips.among_answers(_field("video"), answers.next_qa),
    ),
    "EgoSchema": _questions(
        "egoschema.*",
        "EgoSchema",
        ("video_idx", "option"),
        clips.among_answers(_field("video_idx"), answers.ego_schema),
    ),
    "ActivityNetQA": _questions(
        "activitynetqa.*",
        "ActivityNetQA",
        ("video_name",),
        clips.among_answers(lambda row: f"v_{row['video_name']}", answers.activity_net_qa),
    ),
    "DiDeMo": _retrieval(
        "didemo.*",
        "DiDeMo",
        ("video", "caption"),
        clips.among_all_clips(_stem("video"), _field("caption")),
        "Find a video that includes the following described scenes:",
    ),
    "MSR-VTT": _retrieval(
        "msr-vtt.*",
        "MSR-VTT",
        ("video_id", "caption"),
        clips.among_all_clips(_field("video_id"), _field("caption")),
        "Find a video that contains the following visual content:",
    ),
    "MSVD": _retrieval(
        "msvd.*",
        "MSVD",
        ("video_id", "caption"),
        clips.among_all_clips(_field("video_id"), _first("caption")),
        "Find the video snippet that corresponds to the given summary:",
    ),
    "VATEX": _retrieval(
        "vatex.*",
        "VATEX",
        ("videoID", "enCap"),
        clips.among_all_clips(_field("videoID"), _first("enCap")),
        "Select a video that fits the description provided:",
    ),
    "YouCook2": _retrieval(
        "youcook2.*",
        "YouCook2",
        ("id", "sentence"),
        clips.among_all_clips(_field("id"), _field("sentence")),
        "Find a video that demonstrates the following action while making a recipe:",
    ),
    "QVHighlight": _moments("qvhighlight.*", "QVHighlight"),
    "Charades-STA": _moments("charades_sta.*", "Charades_STA"),
    "MomentSeeker": VideoSet(
        _MOMENT,
        "momentseeker.*",
        "video_mret/MomentSeeker",
        ("query", "positive_frames", "negative_frames", "input_frames"),
        clips.among_listed_clips,
    ),
}
"""The sets by name, in the order of their makers' table."""


def video_part(folder: PublicFolder, known: VideoSet, records: str, limit: int | None) -> Part:
    """Read one set, collecting the folder's problems.

    Args:
        folder: of MMEB-V2.
        known: what is known of the set.
        records: pattern of the files of its records.
        limit: of queries.
    """
    rows: list[Record] = []
    for file in folder.files(records):
        subset = PurePosixPath(file).stem
        rows += [{**row, "subset": subset} for row in folder.records(file, known.fields)]
    rows = rows[: known.most]
    chosen = hash_order(rows, lambda row: repr(sorted((name, row[name]) for name in (*known.fields, "subset"))))[:limit]
    return known.build(clips.ClipRows(folder, records, known.frames, known.instruction, chosen, rows))
