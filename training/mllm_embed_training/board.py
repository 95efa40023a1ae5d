"""A run's numbers as TensorBoard reads them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class Board:
    """Appends scalars to a folder of event files, in this thread: a full disk is an OSError here, not a hanging queue.

    Args:
        folder: made if absent; every process writes a file of its own into it.
        first: first step of this process; TensorBoard forgets what an earlier one wrote from there on.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = EventsWriter(str(folder / "events"), f".{os.getpid()}.{first}")
        self._writer.write_event(
            Event(wall_time=time.time(), step=first, session_log=SessionLog(status=SessionLog.START))
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write one step's values, by name."""
        for name, value in values.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
