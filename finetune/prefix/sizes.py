"""How large kept activations are, and how much room there is."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Rows:
    """What is kept of an example at one depth: a row for each token, or one.

    Args:
        shape: Of one row.
        each: What a row stands for.
    """

    shape: tuple[int, ...]
    each: Literal["token", "example"]

    def count(self, part: Part) -> int:
        """Rows of a split."""
        return part.copies * (part.num_tokens if self.each == "token" else part.num_examples)

    def bytes(self, part: Part, *, itemsize: int) -> int:
        """Of a split, with items of so many bytes."""
        return self.count(part) * math.prod(self.shape) * itemsize


class Part(NamedTuple):
    """How much there is of a split."""

    num_examples: int
    num_tokens: int
    copies: int = 1  # views of each example


def free_memory() -> int | None:
    """Bytes that this process may still take without swapping; None where the system does not say."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = (_CGROUP / "memory.max").read_text().strip()  # a container's
        if limit != "max":
            found.append(max(0, int(limit) - int((_CGROUP / "memory.current").read_text())))
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def free_disk(folder: Path) -> int:
    """Bytes that may be written into a folder, which need not exist yet; 0 where this user may not write there."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if there is None or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return 0
    return shutil.disk_usage(there).free


def shown(size: float) -> str:
    """``"1.3 GB"``: in units of 1,000, as the budgets are written."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"
