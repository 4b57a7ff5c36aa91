"""``log.jsonl``: one line per event, only ever added to, and cut back to a checkpoint's place on resume."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .documents import from_json, to_json
from .files import Files

FILES = Files()


class Log:
    """An open log. A full disk costs lines, with one warning; it never stops a run.

    Args:
        path: The file; made where it is missing. A last line that is torn (the process was killed) is cut off.
        files: The file system.
    """

    def __init__(self, path: Path, *, files: Files = FILES):
        self.path = path
        self._files = files
        self._handle: int | None = files.open_append(path)
        self._failed = False
        try:
            self.truncate_to(self.offset)
        except BaseException:
            self.close()
            raise

    @property
    def offset(self) -> int:
        """The length of the log, in bytes."""
        assert self._handle is not None, "the log is closed"
        return os.fstat(self._handle).st_size

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line, in one write; NaN and infinities become text.

        Raises:
            TypeError: A value is not JSON; names its key.
        """
        data, before = to_json(record, indent=None), self.offset
        assert self._handle is not None
        try:
            self._files.write(self._handle, data)
        except OSError as fault:
            if not self._failed:
                warnings.warn(f"{self.path} lacks lines from here on ({fault.strerror})", stacklevel=2)
            self._failed = True
            with contextlib.suppress(OSError):  # else half a line stays, and is all that can be lost
                self._files.truncate(self._handle, before)

    def sync(self) -> int:
        """Wait until the log is on the disk, and return its length: the offset that a checkpoint records."""
        assert self._handle is not None, "the log is closed"
        self._files.fsync(self._handle)
        return self.offset

    def truncate_to(self, offset: int) -> None:
        """Cut the log to the last whole line that ends at or before ``offset`` bytes."""
        assert self._handle is not None, "the log is closed"
        whole = self._files.read(self.path)[:offset].rfind(b"\n") + 1
        if whole != self.offset:
            self._files.truncate(self._handle, whole)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            try:
                self._files.close(handle)
            except OSError as fault:  # a network file system may tell of lost lines only now
                warnings.warn(f"{self.path} may lack its last lines ({fault.strerror})", stacklevel=2)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, of a running or killed run too: a torn last line is left out.

    Raises:
        ValueError: A line in the middle is no JSON mapping; names the line.
    """
    records, faults = _records(path)
    if faults:
        raise ValueError(faults[0])
    return records


def ending(path: Path) -> str | None:
    """How the run of a log ended, in its own word; None where it has not. A rotten line costs a warning."""
    records, faults = _records(path) if path.is_file() else ([], [])
    if faults:
        more = f" (and {len(faults) - 1} more lines)" if len(faults) > 1 else ""
        warnings.warn(f"{faults[0]}{more}; such lines are passed over", stacklevel=2)
    return next((str(record["ended"]) for record in reversed(records) if "ended" in record), None)


def _records(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of all whole lines, and what is wrong with the others."""
    records, faults = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            records.append(from_json(line))
        except ValueError as fault:
            faults.append(f"{path} line {number}: {fault}")
    return records, faults
