"""Whole processes, from their start to the end of the first update."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .clock import Clock
from .definition import Work
from .processes import SOURCES, environment, last_lines
from .workloads import Workload

MARK = "first step done at"  # what the scripts print


def script(name: str) -> Callable[[Work, Workload, Clock], dict[str, float]]:
    """Runs a script of ``benchmarks.scripts`` with empty caches until it says that the first update is done."""

    def measured(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", f"benchmarks.scripts.{name}", str(data.model), str(data.train)]
            fresh = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
            began = time.time()
            done = subprocess.run(
                [*command, str(data.validation), str(work.batch_size)],
                cwd=SOURCES,
                env=fresh | environment(Path(folder)),
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        marks = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
        if not marks:
            raise RuntimeError(last_lines(done.stderr))
        return {"seconds": float(marks[0].removeprefix(MARK)) - began}

    return measured
