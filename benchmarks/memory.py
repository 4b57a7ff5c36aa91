"""The most memory that a stretch of a process took, above what it held when the stretch began."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def reset_peak() -> int:
    """Start a stretch, and return what the process holds now, in bytes."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    try:
        _RESET.write_text("5")  # VmHWM begins anew (proc(5))
    except OSError:
        pass  # then the peak since the start of the process counts
    return _status("VmRSS")


def peak() -> int:
    """The most since ``reset_peak``, in bytes."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else _status("VmHWM")


def _status(key: str) -> int:
    if not _STATUS.exists():  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) * 1024
