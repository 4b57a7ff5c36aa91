"""Where the traceback of a fault goes that nobody expected: a private file, never through a link."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .redaction import redacted

_owned: list[Path] = []


@contextlib.contextmanager
def crash_logs_in(folder: Path) -> Iterator[None]:
    """While the run folder is this run's own, and after a fault until ``forget``, crash logs go there."""
    _owned[:] = [folder]
    yield
    _owned.clear()


def forget() -> None:
    """No run folder is this process's own."""
    _owned.clear()


def keep(text: str, name: str) -> Path | None:
    """Write a crash log into the run folder, or else a new folder that only this user can read.

    Returns:
        Its path; None where neither can be written.
    """
    for place in _owned:
        with contextlib.suppress(OSError):
            return write(place / name, text)
    with contextlib.suppress(OSError):
        return write(Path(tempfile.mkdtemp(prefix="finetune-crash-")) / name, text)
    return None


def write(path: Path, text: str) -> Path:
    """Write one crash log without its secrets; what was there goes, and a link is not followed.

    Raises:
        OSError: It cannot be written.
    """
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(redacted(text))
    return path
