"""Pieces of work side by side, each in a forked process of its own, or one after another in this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from ..environment import cores
from ..errors import ConfigError, InterruptedRunError
from ..forking.children import FORKS, Report, Running, report_of, started


class Work(NamedTuple):
    """Something to do, and where the traceback of a fault that nobody expected goes."""

    key: Any
    do: Callable[[], Any]
    crash_log: Path


@contextmanager
def ready_to_fork(jobs: int) -> Iterator[None]:
    """Have the libraries loaded and torch on one thread, as threads do not survive a fork; with 0 jobs nothing.

    Raises:
        ConfigError: This process cannot be forked.
    """
    if not jobs:
        yield
        return
    if not FORKS:
        raise ConfigError(f"jobs: got {jobs}, and this platform cannot fork a process; give 0")
    from ..forking.warming import warm

    loaded = sys.modules.get("torch")
    threads = loaded.get_num_threads() if loaded is not None else 0
    if loaded is not None and loaded.cuda.is_initialized():
        raise ConfigError(
            f"jobs: got {jobs}, and this process uses its GPU already, which no forked one survives; give 0, or call "
            "it from a fresh process"
        )
    warm(network="on")
    try:
        yield
    finally:
        if loaded is not None:
            loaded.set_num_threads(threads)


def done(works: Sequence[Work], *, jobs: int) -> Iterator[tuple[Any, Report]]:
    """Key and report of each work as it ends, in any order; what is under way ends with the iteration.

    Args:
        works: Begun in this order.
        jobs: How many at a time; 0: in this process, one after another.

    Raises:
        KeyboardInterrupt: Ctrl-C, here or in one of them; all have ended.
    """
    if not jobs:
        for work in works:
            yield work.key, report_of(work.do, crash_log=work.crash_log, forks=False)
        return
    threads = max(1, cores() // jobs)
    waiting, running = list(works), dict[int, tuple[Any, Running]]()
    try:
        while waiting or running:
            for slot in [slot for slot in range(jobs) if slot not in running][: len(waiting)]:
                work = waiting.pop(0)
                do = partial(_on_own_gpu, work.do, slot=slot) if jobs > 1 else work.do
                running[slot] = work.key, started(do, crash_log=work.crash_log, threads=threads)
            ready = wait([child.receiver for _, child in running.values()])
            for slot in [slot for slot, (_, child) in running.items() if child.receiver in ready]:
                key, child = running.pop(slot)
                report = child.report()
                if report.exit_code == InterruptedRunError.exit_code:
                    raise KeyboardInterrupt
                yield key, report
    finally:
        for _, child in running.values():
            child.stop()


def _on_own_gpu(work: Callable[[], Any], *, slot: int) -> Any:
    """The work, on one of several GPUs where there are several."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return work()
