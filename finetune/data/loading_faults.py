"""Which examples a fault in loading is about: those that a store cannot make, and those that a lost process made."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, FinetuneError
from .store import Draw, Store

if TYPE_CHECKING:
    from .store import Batch

_SHOWN = 5  # examples of a message
_OF_A_LOADER = "DataLoader "  # begins what torch raises from a signal handler, wherever this process is
_NOT_OF_DATA = re.compile(rf"^{_OF_A_LOADER}|memory")  # nor is what its allocator says


@contextmanager
def told_of_examples(store: Store, draws: Sequence[Draw]) -> Iterator[None]:
    """Turn what a store raises for these draws into one message that names the example, by itself if that can be.

    Raises:
        DataError: The store raised something else than a message for the user.
    """
    try:
        yield
    except (FinetuneError, MemoryError):
        raise
    except Exception as fault:
        if isinstance(fault, RuntimeError) and _NOT_OF_DATA.search(str(fault)):
            raise
        said = str(fault).strip().splitlines()
        why = f"{type(fault).__name__}{': ' + said[0] if said else ''}"
        raise DataError(
            f"{named(store, _culprits(store, draws))} cannot be made: {why.rstrip('.')}. "
            "Mend or remove what is wrong there; --debug shows where this was raised."
        ) from fault


def named(store: Store, draws: Sequence[Draw]) -> str:
    """``"example 17 (train.csv line 18)"``, or several."""
    shown = []
    for draw in draws[:_SHOWN]:
        place = ""
        with suppress(Exception):  # a store need not know, and one that is broken may not
            place = f" ({store.where(draw.index)})"  # type: ignore[attr-defined]
        shown.append(f"{draw.index}{place}")
    rest = f" and {len(draws) - _SHOWN} more" if len(draws) > _SHOWN else ""
    return f"example{'s' if len(draws) > 1 else ''} {', '.join(shown)}{rest}"


def _culprits(store: Store, draws: Sequence[Draw]) -> Sequence[Draw]:
    """The first that cannot be made alone; all of them where each can."""
    for draw in draws:
        try:
            store.batch([draw])
        except Exception:
            return [draw]
    return list(draws)


@contextmanager
def told_of_senders(workers: Sequence[Any]) -> Iterator[None]:
    """A tensor that was under way when its sender died is a lost process; a file that data lacks is not.

    Raises:
        RuntimeError: In the words of torch.
    """
    try:
        yield
    except (ConnectionError, EOFError, FileNotFoundError) as fault:
        sentinels = {process.sentinel: str(process.pid) for process in workers}
        lost = [sentinels[sentinel] for sentinel in wait(sentinels, timeout=1)]
        if not lost:
            raise
        raise RuntimeError(f"{_OF_A_LOADER}worker (pid(s) {', '.join(lost)}) exited unexpectedly") from fault


class Making:
    """What each loader process makes at this moment, in memory that they share with the run.

    Args:
        store: Of the split.
        cuts: A step's draws, micro-batch by micro-batch.
        workers: Loader processes, which are forked after this is made.
    """

    def __init__(self, store: Store, cuts: Callable[[int], Sequence[Sequence[Draw]]], *, workers: int) -> None:
        self._store = store
        self._cuts = cuts
        self._now = np.frombuffer(mmap.mmap(-1, 16 * workers), np.int64).reshape(workers, 2)
        self._now[:] = -1  # step, micro-batch; negative between two steps

    def batches(self, step: int, make: Callable[[Sequence[Draw]], Batch]) -> list[Batch]:
        """The micro-batches of a step; called in a loader process."""
        from torch.utils.data import get_worker_info

        info: Any = get_worker_info()
        made = []
        for number, draws in enumerate(self._cuts(step)):
            self._now[info.id] = step, number
            made.append(make(draws))
        self._now[info.id] = -1
        return made

    def of(self, pids: Sequence[int], lost: str) -> str:
        """What was made by the process that a message of torch is about; nothing where it was idle.

        Args:
            pids: Of the loader processes, in their order.
            lost: The message: it names the process, or where one hangs, none.
        """
        ids = [index for index, pid in enumerate(pids) if re.search(rf"\b{pid}\b", lost)] or range(len(pids))
        steps = sorted((int(self._now[index, 0]), int(self._now[index, 1])) for index in ids)
        for step, number in steps:
            if step >= 0:
                return f"while it made {named(self._store, self._cuts(step)[number])}"
        return ""

    @contextmanager
    def told(self, pids: Sequence[int]) -> Iterator[None]:
        """Note on what torch raises of a lost process what that was making, also where the caller was hit by it."""
        try:
            yield
        except (GeneratorExit, RuntimeError) as fault:
            lost = fault.__context__ if isinstance(fault, GeneratorExit) else fault
            what = str(lost)
            if isinstance(lost, RuntimeError) and what.startswith(_OF_A_LOADER) and (of := self.of(pids, what)):
                lost.add_note(of)
            raise
