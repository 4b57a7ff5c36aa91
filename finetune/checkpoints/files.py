"""The file operations that checkpoints are made of, as one object that is passed as an argument.

Everything that changes a run folder goes through here, so a test can stop, fail or record the run at
any operation without a switch in the library.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from pathlib import Path

SAFE_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,96}")


def is_safe_name(name: str) -> bool:
    """Whether ``name`` can name a file of ours: no path, no leading dot, nothing a shell or a file system bends."""
    return SAFE_NAME.fullmatch(name) is not None


class Files:
    """The real file system; every method raises OSError, and none follows a link at the last component."""

    def open_write(self, path: Path) -> int:
        """Open a new file for writing; it must not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)

    def open_append(self, path: Path) -> int:
        """Open a file, made where it is missing, so that every write lands at its end."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """Write all of ``data``: one system call may take less than it is given (2 GiB at most on Linux)."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]

    def fsync(self, handle: int) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(handle)

    def truncate(self, handle: int, size: int) -> None:
        """Cut an open file to ``size`` bytes."""
        os.ftruncate(handle, size)

    def close(self, handle: int) -> None:
        """Close a file; network file systems report a failed write only here."""
        os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file or folder in one step; a file replaces a file, a folder only an empty folder."""
        os.replace(source, target)

    def symlink(self, pointee: Path, path: Path) -> None:
        """Make a link at ``path``."""
        os.symlink(pointee, path)

    def fsync_path(self, path: Path) -> None:
        """Wait until a folder's entries (or a closed file's data) are on the disk."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def make_folder(self, path: Path) -> None:
        """Make one folder, which must not exist."""
        path.mkdir()

    def listdir(self, path: Path) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(os.listdir(path))

    def size(self, path: Path) -> int:
        """Bytes of a regular file.

        Raises:
            OSError: Missing, or a link, a pipe, a folder: anything that is not a plain file.
        """
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return found.st_size

    def read(self, path: Path) -> bytes:
        """All bytes of a file."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            return file.read()

    def unlink(self, path: Path) -> None:
        """Remove a file or link."""
        path.unlink()

    def rmtree(self, path: Path) -> None:
        """Remove a folder and all that is in it."""
        shutil.rmtree(path)


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a real folder, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def free_path(root: Path, stem: str) -> Path:
    """``root/stem-1``, or the first number that is free."""
    number = 1
    while (path := root / f"{stem}-{number}").exists() or path.is_symlink():
        number += 1
    return path
