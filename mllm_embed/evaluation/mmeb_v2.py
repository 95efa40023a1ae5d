"""MMEB-V2: the 36 sets of pictures of MMEB, 18 of video and 24 of visual documents, each with its metric.

Facts: Meng et al. 2025, VLM2Vec-V2, and its authors' evaluation (TIGER-AI-Lab/VLM2Vec at 6e1e1d4: names and groups in
`experiments/report_score_v2.py`, places in `experiments/public/eval/*.yaml`, instructions in `src/data/eval_dataset`).
Hit@1, for documents nDCG at 5 with linear gains. Their overall score is the mean over the 78 sets; the mean of each
modality stands under `groups`.
"""

from __future__ import annotations

from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError
from mllm_embed.evaluation.mmeb import META_TASKS, image_tasks
from mllm_embed.evaluation.mmeb_v2_video import VIDEO_SETS, video_part
from mllm_embed.evaluation.public_beir import DOCUMENT_METRICS, documents
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE

IMAGE, VIDEO, VISDOC = "image", "video", "visdoc"
"""The modality groups."""
DOCUMENT_INSTRUCTIONS = (
    "Find a document image that matches the given query:",
    "Understand the content of the provided document image.",
)
_SYNTHETIC = "syntheticDocQA_{}_test_beir"
DOCUMENT_SETS = {
    "ViDoRe-V1": {
        "ViDoRe_arxivqa": "arxivqa_test_subsampled_beir",
        "ViDoRe_docvqa": "docvqa_test_subsampled_beir",
        "ViDoRe_infovqa": "infovqa_test_subsampled_beir",
        "ViDoRe_tabfquad": "tabfquad_test_subsampled_beir",
        "ViDoRe_tatdqa": "tatdqa_test_beir",
        "ViDoRe_shiftproject": "shiftproject_test_beir",
        "ViDoRe_syntheticDocQA_artificial_intelligence": _SYNTHETIC.format("artificial_intelligence"),
        "ViDoRe_syntheticDocQA_energy": _SYNTHETIC.format("energy"),
        "ViDoRe_syntheticDocQA_government_reports": _SYNTHETIC.format("government_reports"),
        "ViDoRe_syntheticDocQA_healthcare_industry": _SYNTHETIC.format("healthcare_industry"),
    },
    "ViDoRe-V2": {
        "ViDoRe_esg_reports_human_labeled_v2": "esg_reports_human_labeled_v2",
        "ViDoRe_biomedical_lectures_v2_multilingual": "biomedical_lectures_v2",
        "ViDoRe_economics_reports_v2_multilingual": "economics_reports_v2",
        "ViDoRe_esg_reports_v2_multilingual": "esg_reports_v2",
    },
    "VisRAG": {
        "VisRAG_ArxivQA": "VisRAG-Ret-Test-ArxivQA",
        "VisRAG_ChartQA": "VisRAG-Ret-Test-ChartQA",
        "VisRAG_MP-DocVQA": "VisRAG-Ret-Test-MP-DocVQA",
        "VisRAG_SlideVQA": "VisRAG-Ret-Test-SlideVQA",
        "VisRAG_InfoVQA": "VisRAG-Ret-Test-InfoVQA",
        "VisRAG_PlotQA": "VisRAG-Ret-Test-PlotQA",
    },
    "VisDoc-OOD": {
        "ViDoSeek-page": "ViDoSeek-page-fixed",
        "ViDoSeek-doc": "ViDoSeek",
        "MMLongBench-page": "MMLongBench-page-fixed",
        "MMLongBench-doc": "MMLongBench-doc",
    },
}
"""By meta-task, the sets of documents and the last part of each one's name on the hub, which is its folder's."""
NAMES = (*META_TASKS, *VIDEO_SETS, *(name for sets in DOCUMENT_SETS.values() for name in sets))
"""All 78 sets."""
_IMAGE_ROOT, _VIDEO_DATA, _DOCUMENT_ROOT = "image-tasks/", "video-tasks/data/", "visdoc-tasks/data/"


def mmeb_v2_tasks(folder: PublicFolder, limit: int | None = None) -> list[EvalTask]:
    """Build one task per set that the folder holds; those that it does not are noted as absent.

    Args:
        folder: with `image-tasks`, `video-tasks` and `visdoc-tasks`.
        limit: queries per set, the first in hash order; None takes all.

    Raises:
        EvaluationError: no set, or records, pictures and clips that are missing, all listed.
    """
    tasks = [
        *image_tasks(folder, limit, sets=_IMAGE_ROOT, pictures=_IMAGE_ROOT, group=IMAGE),
        *_video_tasks(folder, limit),
        *_document_tasks(folder, limit),
    ]
    folder.check()
    if not tasks:
        raise EvaluationError(f"{folder.path} has no set of MMEB-V2, such as {_IMAGE_ROOT}{NAMES[0]}")
    return tasks


def _video_tasks(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    places = {name: f"{_VIDEO_DATA}{known.records}" for name, known in VIDEO_SETS.items()}
    return [
        EvalTask(
            name,
            VIDEO_SETS[name].meta_task,
            (video_part(folder, VIDEO_SETS[name], places[name], limit),),
            HEADLINE,
            group=VIDEO,
        )
        for name in folder.present(places)
    ]


def _document_tasks(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    places = {name: f"{_DOCUMENT_ROOT}{place}" for sets in DOCUMENT_SETS.values() for name, place in sets.items()}
    meta_tasks = {name: meta_task for meta_task, sets in DOCUMENT_SETS.items() for name in sets}
    tasks = []
    for name in folder.present(places):
        part = documents(folder, f"{places[name]}/", limit, instructions=DOCUMENT_INSTRUCTIONS)
        tasks.append(EvalTask(name, meta_tasks[name], (part,), HEADLINE, DOCUMENT_METRICS, VISDOC))
    return tasks
