"""How MMEB-V2's sets of clips become queries over candidates: one function per kind of task.

A clip is the frames that the makers publish, as pictures in order. What a record's fields mean: the authors'
evaluation, see `mllm_embed.evaluation.mmeb_v2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mmeb_v2_answers import Choice
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE, Candidates
from mllm_embed.evaluation.public_readers import Record
from mllm_embed.types import Content, EmbedInput, Text

FRAMES = "video-tasks/frames"
TARGET = "Understand the content of the provided video."
MOMENT_TARGET = "Understand the content of the provided video clip."
SOUGHT = {
    "": "Find the clip that corresponds to the given text:",
    ".jpg": "Select the video clip that aligns with the given text and image:",
    ".mp4": "Find the clip that corresponds to the given sentence and video segment:",
}
"""MomentSeeker's instructions by the ending of what is asked with besides the text."""
Name = Callable[[Record], str]
"""A record -> the folder of its clip among the set's frames, or what it says."""


@dataclass(frozen=True, slots=True)
class ClipRows:
    """The records of one set.

    Attributes:
        folder: that everything is read from; problems go there.
        records: pattern of the files of the records.
        frames: folder of the set's clips, one folder of pictures each.
        instruction: of queries.
        chosen: the records that are asked about.
        every: all records.
    """

    folder: PublicFolder
    records: str
    frames: str
    instruction: str
    chosen: Sequence[Record]
    every: Sequence[Record]

    def clip(self, name: str) -> tuple[Content, ...]:
        """Return the frames of a clip."""
        return self.folder.clip(f"{FRAMES}/{self.frames}/{name}")

    def target(self, name: str, instruction: str = TARGET) -> EmbedInput:
        """Return a clip as a candidate."""
        return EmbedInput(self.clip(name), instruction)

    def query(self, content: Iterable[Content], truths: Iterable[int], own: Iterable[int] = ()) -> Query:
        """Return a query; equal candidates of its own count once."""
        return Query(
            EmbedInput(tuple(content), self.instruction),
            tuple(dict.fromkeys(truths)),
            (HEADLINE,),
            tuple(dict.fromkeys(own)),
        )


Build = Callable[[ClipRows], Part]


def among_all_classes(clip: Name, *, count: int) -> Build:
    """Clips find the name of their class among all; a test split that lacks classes needs a list of them beside it."""

    def build(rows: ClipRows) -> Part:
        listed = f"video-tasks/labels/{PurePosixPath(rows.records).stem}.txt"
        names = {str(row["pos_text"]) for row in rows.every}
        if (rows.folder.path / listed).is_file():
            names.update(rows.folder.lines(listed))
        labels = sorted(names)
        if len(labels) != count:
            rows.folder.problem(f"{rows.records} names {len(labels)} of {count} classes; list them all in {listed}")
        places = {label: place for place, label in enumerate(labels)}
        queries = [rows.query(rows.clip(clip(row)), [places[str(row["pos_text"])]]) for row in rows.chosen]
        return Part("all", tuple(queries), tuple(EmbedInput((Text(label),)) for label in labels))

    return build


def among_listed_classes(clip: Name) -> Build:
    """Clips find the name of their class among those that their record lists."""

    def build(rows: ClipRows) -> Part:
        candidates = Candidates()
        queries = []
        for row in rows.chosen:
            own = [_text(candidates, label) for label in row["neg_text"]]
            right = _text(candidates, row["pos_text"])
            if right not in own:
                rows.folder.problem(
                    f"{rows.records}: the class of {clip(row)}, {row['pos_text']!r}, is not in neg_text"
                )
            queries.append(rows.query(rows.clip(clip(row)), [right], own))
        return Part("all", tuple(queries), candidates.items(), 0)

    return build


def among_answers(clip: Name, choice: Callable[[Record], Choice]) -> Build:
    """Clips with a question find the answer among those of the question."""

    def build(rows: ClipRows) -> Part:
        candidates = Candidates()
        queries = []
        for row in rows.chosen:
            asked = choice(row)
            own = [_text(candidates, answer) for answer in asked.answers]
            if not 0 <= asked.right < len(own):
                rows.folder.problem(f"{rows.records}: {row['answer']!r} is no answer to {row['question']!r}")
                continue
            queries.append(rows.query((*rows.clip(clip(row)), Text(asked.question)), [own[asked.right]], own))
        return Part("all", tuple(queries), candidates.items(), 0)

    return build


def among_all_clips(clip: Name, caption: Name) -> Build:
    """Captions find their clip among all clips of the set."""

    def build(rows: ClipRows) -> Part:
        candidates = Candidates()
        for row in rows.every:
            candidates.place(clip(row), partial(rows.target, clip(row)))
        queries = [
            rows.query((Text(caption(row).strip()),), [candidates.place(clip(row), partial(rows.target, clip(row)))])
            for row in rows.chosen
        ]
        return Part("all", tuple(queries), candidates.items())

    return build


def among_clips_of_the_video(video: Name) -> Build:
    """A video and a text find the clip of the moment among clips of the same video.

    In a video's folder lie `query`, its own frames, and a folder per clip; the right one's name begins with `positive`.
    """

    def build(rows: ClipRows) -> Part:
        candidates = Candidates()
        queries = []
        for row in rows.chosen:
            root = rows.folder.path / FRAMES / rows.frames / video(row)
            names = sorted(clip.name for clip in root.iterdir() if clip.is_dir()) if root.is_dir() else []
            clips = [f"{video(row)}/{name}" for name in names if name != "query"]
            right = [place for place, name in enumerate(clips) if PurePosixPath(name).name.startswith("positive")]
            if len(right) != 1:
                rows.folder.problem(f"{FRAMES}/{rows.frames}/{video(row)} has {len(right)} positive clips, must have 1")
                continue
            own = [candidates.place(name, partial(rows.target, name)) for name in clips]
            content = (*rows.clip(f"{video(row)}/query"), Text(str(row["query"])))
            queries.append(rows.query(content, [own[right[0]]], own))
        return Part("all", tuple(queries), candidates.items(), 0)

    return build


def among_listed_clips(rows: ClipRows) -> Part:
    """A text, alone or with a picture or a clip, finds one of the right clips among those that its record lists."""
    candidates = Candidates()
    queries = []
    for row in rows.chosen:
        right, wrong = (
            [
                candidates.place(
                    clip["output_path"], partial(rows.target, _frames_of(clip["output_path"]), MOMENT_TARGET)
                )
                for clip in row[field]
            ]
            for field in ("positive_frames", "negative_frames")
        )
        given = str(row["input_frames"])
        kind = next((ending for ending in SOUGHT if ending and given.endswith(ending)), "")
        shown: tuple[Content, ...] = ()
        if kind == ".mp4":
            shown = rows.clip(_frames_of(given))
        elif kind == ".jpg":
            shown = (rows.folder.image(f"{FRAMES}/{rows.frames}/query_{given}"),)
        asked = EmbedInput((*shown, Text(str(row["query"]))), SOUGHT[kind])
        queries.append(Query(asked, tuple(dict.fromkeys(right)), (HEADLINE,), tuple(dict.fromkeys((*right, *wrong)))))
    return Part("all", tuple(queries), candidates.items(), 0)


def _frames_of(path: str) -> str:
    return f"video_frames/{path.replace('/', '_').partition('.mp4')[0]}"


def _text(candidates: Candidates, text: object) -> int:
    return candidates.place(str(text), lambda: EmbedInput((Text(str(text)),)))
