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
        self.truncate_to(self.offset)

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
            self._files.close(handle)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, of a running or killed run too: a torn last line is left out.

    Raises:
        ValueError: A line in the middle is no JSON mapping; names the line.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(from_json(line))
        except ValueError as fault:
            raise ValueError(f"{path} line {number}: {fault}") from fault
    return records
