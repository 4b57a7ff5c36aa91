"""How cost grows as the work grows: measurements of our side alone."""

from __future__ import annotations

import time
from pathlib import Path

from . import memory
from .clock import Clock
from .definition import Work
from .ours import Clocked, arguments, task, whole
from .workloads import Workload


def epochs(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
    """A later epoch as a share of the first, with everything before it counted to the first."""
    found = whole(work, data, clock)
    return {**found, "later_share": found["later_epoch"] / found["first_epoch"]} if found else {}


def training(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
    """Seconds of one epoch, from the first update to the last."""
    whole(work, data, clock)
    last = max(clock.ticks)  # 0 in the run that only warms up
    return {} if not last else {"seconds": (clock.ticks[last] - clock.ticks[0]) * (last + 1) / last}


def evaluation(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
    """Memory of evaluating the training split, above what model and data take."""
    from .ours_evaluation import evaluation as evaluated

    evaluated(work, data, clock, warmups=0)
    return {"memory": clock.peak_bytes}


def many_rows(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
    """The most memory of a whole process that stores and shuffles all rows and trains a few updates on them."""
    from finetune import fit

    began = time.perf_counter()
    settings = arguments(work) | {"length": "3 steps", "batch_size": work.batch_size}
    fit(Clocked(task(data), _Silent()), **settings)
    seconds = time.perf_counter() - began
    return {"memory": memory.peak(), "seconds": seconds, "file_bytes": Path(data.train).stat().st_size}


class _Silent(Clock):
    """Never resets the peak: everything since the start of the process counts."""

    def loaded(self) -> None:
        """Nothing to note."""
