"""Names in a folder that belong to a process for as long as it lives.

``flock`` belongs to the open file, so the kernel gives a name back however its owner dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from pathlib import Path

_IN_USE = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_OLD_S = 24 * 3600  # of a name on a file system without locks, where nothing says whether its process lives

_held: set[int] = set()


def claim(drafts: Path) -> tuple[Path, int]:
    """A free name in ``drafts``, and the lock that tells others that its process lives."""
    while True:
        folder = drafts / uuid.uuid4().hex
        handle = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if _is_locked(handle) is not False and os.fstat(handle).st_nlink:
            _held.add(handle)
            return folder, handle
        os.close(handle)  # between the two calls, another process took it for a dead one's


def _is_locked(handle: int) -> bool | None:
    """Take a lock at once: whether it worked, or None on a file system without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        return False if fault.errno in _IN_USE else None
    return True


def drop(folder: Path, lock: int) -> None:
    """Remove what is left under a claimed name, and give the name back."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        Path(f"{folder}.lock").unlink(missing_ok=True)
    _held.discard(lock)
    os.close(lock)


def is_held(lock: int) -> bool:
    """Whether this process has the lock: one that was forked since has not."""
    return lock in _held


def remove_dead(drafts: Path) -> None:
    """Remove drafts whose process has ended."""
    for path in drafts.glob("*.lock"):
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            age = time.time() - os.fstat(handle).st_mtime
        except OSError:
            continue
        locked = _is_locked(handle)
        if locked or (locked is None and age > _OLD_S):
            drop(path.with_suffix(""), handle)
        else:
            os.close(handle)


def _forget_in_child() -> None:
    """A forked child shares the open file: it must not keep a lock alive when its parent has died."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
