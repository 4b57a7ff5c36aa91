"""One owner per run folder, for as long as its process lives.

``flock`` belongs to the open file, so the kernel gives it back however the owner dies: there is no stale
lock. What the file holds (process, host, time) is for the message only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from pathlib import Path

from ..errors import RunFolderError

LOCK = ".lock"
_IN_USE = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_held: set[int] = set()


class Lock:
    """A lock that is held; ``release`` gives it back."""

    def __init__(self, handle: int):
        self._handle: int | None = handle
        _held.add(handle)

    def sign(self) -> None:
        """Write who holds it, for whoever is refused."""
        assert self._handle is not None
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n"
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text.encode(), 0)

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would let two owners in."""
        if self._handle is not None and self._handle in _held:
            _held.discard(self._handle)
            os.close(self._handle)
        self._handle = None


def take_lock(folder: Path) -> Lock:
    """Take the lock of a run folder at once, or not at all.

    Raises:
        RunFolderError: Another run has it; names its process, host and time. Or the folder is no longer there.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        if fault.errno in _IN_USE:
            owner = _owner(handle)
            os.close(handle)
            raise RunFolderError(
                f"{folder} is in use by {owner}. Wait for it to end, or choose another output_dir."
            ) from None
        warnings.warn(
            f"{folder} is on a file system without locks ({fault.strerror}): see to it that no second run uses it",
            stacklevel=2,
        )
    if not _has_name(handle, folder / LOCK):
        os.close(handle)
        raise RunFolderError(f"{folder} was moved aside by another process just now. Choose another output_dir.")
    return Lock(handle)


def _has_name(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at ``path``: another run's --overwrite may have moved its folder."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def check_unused(folder: Path) -> None:
    """Refuse a folder that somebody is at; one that has no lock is not given one.

    Raises:
        RunFolderError: As ``take_lock``.
    """
    if (folder / LOCK).exists():
        take_lock(folder).release()


def _owner(handle: int) -> str:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        return f"process {found['pid']} on host {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # which has just taken it, and not signed yet


def _forget_in_child() -> None:
    """A forked child shares the open file: it must not keep the lock alive when its parent has died."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
