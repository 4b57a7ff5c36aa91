"""Where a run hangs: the stacks of its threads, before whoever waits for it gives up."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import Self

from .lost import TIMEOUT

AFTER_S = 0.8 * TIMEOUT.total_seconds()  # without a movement; while the other ranks still wait for this one


class StallWatch:
    """Writes the stack of every thread to standard error, once, when a run has not moved for ``after_s``.

    A thread of Python does it. The timer of ``faulthandler`` would also see a call that keeps the interpreter's
    lock, but a process that is forked meanwhile waits for that timer at its end, for ever (Python 3.11).

    Args:
        after_s: Seconds; None: four fifths of what ranks wait for each other.
    """

    def __init__(self, after_s: float | None = None) -> None:
        self._after = AFTER_S if after_s is None else after_s
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def moved(self) -> None:
        """Begin to wait anew."""
        self._moved = time.monotonic()

    def __enter__(self) -> Self:
        self.moved()
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._after - (time.monotonic() - self._moved)):
            if time.monotonic() - self._moved >= self._after:
                sys.stderr.write(_stacks(self._after))
                sys.stderr.flush()
                return


def _stacks(after: float) -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = [f"process {os.getpid()} has not moved for {after:g} s; its threads, the innermost call last:\n"]
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            lines += [f"{names.get(ident, 'a thread')}:\n", *traceback.format_stack(frame)]
    return "".join(lines)
