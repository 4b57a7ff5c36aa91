"""One piece of work in a forked child, which inherits the libraries (10 s to import) and measures its own memory."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ..crash_logs import write
from ..environment import cores
from ..errors import FinetuneError, InterruptedRunError, PreemptedError
from ..orphans import die_with_parent
from ..redaction import redacted

# Elsewhere there is no fork, or (macOS) one that system libraries do not survive.
FORKS = sys.platform == "linux"

_UNEXPECTED = 1
_STATUS = Path("/proc/self/status")


class Report(NamedTuple):
    """What a piece of work gave, or why it did not."""

    value: Any = None
    error: str = ""  # one line; "" where all went well
    exit_code: int = 0
    seconds: float = 0.0
    peak_bytes: int | None = None  # peak resident memory less what was resident when the work began


def report_of(work: Callable[[], Any], *, crash_log: Path, threads: int = 0, forks: bool = FORKS) -> Report:
    """Run ``work``, in a child where this platform forks; otherwise here, without its memory.

    The parent must have kept torch to one thread, since threads do not survive a fork.

    Args:
        work: What it returns is pickled.
        crash_log: Where the traceback of a fault that nobody expected goes.
        threads: Of torch in the child; 0: as many as there are cores.
        forks: False runs it in this process.

    Raises:
        KeyboardInterrupt: Ctrl-C, here or in the child; the child has ended.
    """
    report = _in_child(work, crash_log, threads or cores()) if forks else _measured(work, crash_log)
    if report.exit_code == InterruptedRunError.exit_code:
        raise KeyboardInterrupt
    return report


class Running:
    """A piece of work in a child that goes on; made by ``started``."""

    def __init__(self, child: Any, receiver: Connection) -> None:
        self._child = child
        self._began = time.monotonic()
        self.receiver = receiver  # readable once there is a report, or the child has died

    def report(self) -> Report:
        """What came of it; waits."""
        try:
            found: Report = self.receiver.recv()
            self._child.join()
        except EOFError:
            self._child.join()
            seconds = time.monotonic() - self._began
            found = Report(error=_death(self._child.exitcode), exit_code=_UNEXPECTED, seconds=seconds)
        self.receiver.close()
        return found

    def stop(self) -> None:
        """End it, gently first: on a terminal it was interrupted as well, and is leaving."""
        for stop in (lambda: None, self._child.terminate, self._child.kill):
            stop()
            self._child.join(3)
        self.receiver.close()


def started(work: Callable[[], Any], *, crash_log: Path, threads: int) -> Running:
    """As ``report_of``, in a child, without waiting for it."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, crash_log, threads, sender), daemon=True)
    child.start()
    sender.close()
    return Running(child, receiver)


def _in_child(work: Callable[[], Any], crash_log: Path, threads: int) -> Report:
    running = started(work, crash_log=crash_log, threads=threads)
    try:
        return running.report()
    except KeyboardInterrupt:
        running.stop()
        raise


def _child(work: Callable[[], Any], crash_log: Path, threads: int, sender: Connection) -> None:
    die_with_parent(signal.SIGTERM)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    before = _resident("VmRSS")
    report = _measured(work, crash_log)
    peak = _resident("VmHWM")  # the kernel starts a child's at what it inherits
    if before is not None and peak is not None:
        report = report._replace(peak_bytes=peak - before)
    with suppress(BrokenPipeError):
        sender.send(report)
    sender.close()


def _measured(work: Callable[[], Any], crash_log: Path) -> Report:
    """The work's result and time; faults become one line."""
    began = time.monotonic()
    try:
        report = Report(work())
    except PreemptedError:  # from ``terminate``
        report = Report(error="interrupted", exit_code=InterruptedRunError.exit_code)
    except FinetuneError as error:
        report = Report(error=redacted(" ".join(str(error).split())), exit_code=error.exit_code)
    except KeyboardInterrupt:
        report = Report(error="interrupted", exit_code=InterruptedRunError.exit_code)
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        with suppress(OSError):
            write(crash_log, traceback.format_exc())
        report = Report(
            error=f"unexpected {type(error).__name__}: {redacted(first)} (traceback: {crash_log})",
            exit_code=_UNEXPECTED,
        )
    return report._replace(seconds=time.monotonic() - began)


def _resident(field: str) -> int | None:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes; None where there is no /proc."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        out_of_memory = "; the machine may be out of memory" if code == -9 else ""
        return f"its process was ended by signal {-code}{out_of_memory}"
    return f"its process ended with code {code} and no result"
