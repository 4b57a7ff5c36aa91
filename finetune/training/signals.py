"""Asking a run to stop: a signal only sets a flag, which all ranks add up at the next update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import FinetuneError, InterruptedRunError, PreemptedError

_STOPPING = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


class _StopNowError(BaseException):
    """Leaves the preparation of a run; a BaseException, so that no library on the way mistakes it for its own."""


class StopRequests:
    """Which signals have come to this process since the run began.

    Until ``defer`` is called there is nothing to save, so a signal ends the run where it stands; from then on
    it is only noted. The first one says how the run ends: a launcher that dies of Ctrl-C sends SIGTERM after it.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._interrupts = 0
        self._deferred = False

    def defer(self) -> None:
        """From here on signals wait for the next update."""
        self._deferred = True

    def flags(self) -> list[int]:
        """Two flags to be summed over ranks: interrupted, preempted."""
        asked = self._first is not None
        return [int(self._first == signal.SIGINT), int(asked and self._first != signal.SIGINT)]

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: no file, no collective, nothing that could block."""
        self._interrupts += number == signal.SIGINT
        if self._first is None:  # noted even where this raises: Python drops what is raised in a finaliser
            self._first = number
        if self._interrupts > 1 or (number == signal.SIGINT and not self._deferred):
            raise KeyboardInterrupt
        if not self._deferred:
            raise _StopNowError


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
    """Listen to SIGINT, SIGTERM, SIGUSR1 and SIGHUP for the length of a run, and give the old handlers back.

    A signal that is ignored stays so (``nohup``). In a thread other than the main one Python allows no handlers,
    so nothing is listened to.

    Raises:
        PreemptedError: A signal came before training began.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    numbers = [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    listened = [number for number in numbers if before[number] != signal.SIG_IGN]
    try:
        for number in listened:
            signal.signal(number, requests.receive)
        yield requests
    except _StopNowError:
        raise PreemptedError("asked to stop before training began; nothing of it is lost. Start it again.") from None
    finally:
        for number in listened:
            handler = before[number]
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
