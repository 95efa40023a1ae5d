"""The user's own training data: files of rows in several formats -> examples (see docs/training-data.md)."""

from mllm_embed_training.data_files.file_task import answer_task, file_checksums, file_task
from mllm_embed_training.data_files.schemas import SCHEMAS
from mllm_embed_training.data_files.stores import open_rows

__all__ = ["SCHEMAS", "answer_task", "file_checksums", "file_task", "open_rows"]
