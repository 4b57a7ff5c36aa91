"""Where the traceback of a fault goes that nobody expected: a private file, never through a link."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .redaction import redacted

_PLACE = "finetune_run_folder"  # an attribute of the fault itself, so that it lasts as long as that


@contextlib.contextmanager
def crash_logs_in(folder: Path) -> Iterator[None]:
    """While the run folder is this run's own: a fault that ends the run has its crash log there."""
    try:
        yield
    except Exception as fault:
        vars(fault)[_PLACE] = folder
        raise


def keep(fault: Exception, text: str, name: str) -> Path | None:
    """Write a crash log into the folder of the run that failed, or else a new folder that only this user can read.

    Returns:
        Its path; None where neither can be written.
    """
    if _PLACE in vars(fault):
        with contextlib.suppress(OSError):
            return write(vars(fault)[_PLACE] / name, text)
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
