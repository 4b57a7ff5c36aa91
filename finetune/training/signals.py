"""Asking a run to stop: a signal only sets a flag, which all ranks add up at the next update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import FinetuneError, InterruptedRunError, PreemptedError

_PREEMPTING = ("SIGTERM", "SIGUSR1")


class StopRequests:
    """Which signals have come to this process since the run began."""

    def __init__(self) -> None:
        self.interrupted = 0
        self.preempted = 0

    def flags(self) -> list[int]:
        """Two counts to be summed over ranks: interrupts, preemptions."""
        return [self.interrupted, self.preempted]

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: no file, no collective, nothing that could block."""
        if number == signal.SIGINT:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted += 1
        else:
            self.preempted += 1


def stop_error(flags: list[int], *, step: int, saved: str) -> FinetuneError | None:
    """Why the run stops here, given the flags of all ranks; None where none asked for it."""
    interrupted, preempted = flags
    if preempted:
        return PreemptedError(f"asked to stop: ended after step {step}{saved}")
    if interrupted:
        return InterruptedRunError(f"interrupted: ended after step {step}{saved}")
    return None


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Listen to SIGINT, SIGTERM and SIGUSR1 for the length of a run, and give the old handlers back.

    In a thread other than the main one Python allows no handlers, so nothing is listened to.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = [signal.SIGINT, *(getattr(signal, name) for name in _PREEMPTING if hasattr(signal, name))]
    before = {number: signal.signal(number, requests.receive) for number in numbers}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
