"""Standard streams that a run outlives: closed, full, or read by nobody."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO


class OutputLostError(Exception):
    """Standard output cannot be written.

    Args:
        fault: What the system said.
    """

    def __init__(self, fault: OSError) -> None:
        self.is_closed = fault.errno == errno.EPIPE  # the reader (`finetune recipes | head`) has seen enough
        super().__init__(f"standard output cannot be written: {fault.strerror or fault}")


class Stream:
    """A standard stream whose faults never reach the code that prints; no OSError comes out of it.

    Args:
        stream: The real one.
        silent: Lose what cannot be written; else raise OutputLostError.
    """

    def __init__(self, stream: TextIO, *, silent: bool) -> None:
        self._stream = stream
        self._silent = silent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as the stream does."""
        try:
            return self._stream.write(text)
        except OSError as fault:
            self._lost(fault)
            return len(text)

    def flush(self) -> None:
        """Flush as the stream does."""
        try:
            self._stream.flush()
        except OSError as fault:
            self._lost(fault)

    def _lost(self, fault: OSError) -> None:
        if not self._silent:
            self._silent = True  # told once; Python flushes again when it ends
            raise OutputLostError(fault) from None


def guard_streams() -> None:
    """Make standard output and error safe to print to, for the life of the process; those of a test stay."""
    _open_missing()
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = Stream(sys.stdout or open(1, "w", closefd=False), silent=False)  # type: ignore[assignment]
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = Stream(sys.stderr or open(2, "w", closefd=False), silent=True)  # type: ignore[assignment]


def _open_missing() -> None:
    """Else the next file that is opened, a checkpoint or the log, becomes what C code writes its warnings to."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003
