"""How much memory a piece of work takes; needs only torch, so that it runs in other packages' environments too."""

from __future__ import annotations

from pathlib import Path

import torch

LIVE_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_ARENA_MAX": "1"}
"""Environment of processes that measure: blocks go back to the system when freed, so that the peak of the process is
the memory in use, and not what the C library keeps for later, which grows with the number of chunks."""


class Memory:
    """Peak memory since it was made, above what was in use then."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._rest = float(torch.cuda.memory_allocated())
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
            self._rest = _status("VmRSS")

    def peak(self) -> float:
        """Return it, in MiB."""
        peak = torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")
        return (peak - self._rest) / 2**20


def _status(field: str) -> float:
    """Return a field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024
