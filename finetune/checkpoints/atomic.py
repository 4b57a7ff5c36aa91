"""One file or folder, replaced as a whole: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from .files import Files, is_folder

FILES = Files()
TAG = "finetune"


def write_file_atomically(path: Path, data: bytes, *, tag: str = TAG, files: Files = FILES) -> None:
    """Write aside, sync, rename, sync the folder.

    Raises:
        OSError: The disk is full, or failed; the old file is untouched and nothing half-made is left.
    """
    temporary = path.with_name(temporary_name(path.name, tag=tag))
    if temporary.exists() or temporary.is_symlink():
        files.unlink(temporary)
    try:
        handle = files.open_write(temporary)
        try:
            files.write(handle, data)
            files.fsync(handle)
        finally:
            files.close(handle)
        files.rename(temporary, path)
    except Exception:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise
    files.fsync_path(path.parent)


def write_folder_atomically(path: Path, fill: Callable[[Path], None], *, tag: str = TAG, files: Files = FILES) -> None:
    """Let ``fill`` write into a new folder, then put that in the place of ``path``.

    A folder cannot be replaced in one step, so for an instant there is none; ``finish_interrupted`` puts the
    old one back if the process dies just then.

    Args:
        path: The folder to write or replace.
        fill: Writes the contents into the empty folder that it is given.
        tag: Part of the temporary names, so that only their owner removes them.
        files: The file system.

    Raises:
        OSError: The disk is full, or failed; the old folder is untouched and nothing half-made is left.
    """
    temporary = path.with_name(temporary_name(path.name, tag=tag))
    old = path.with_name(temporary_name(path.name, kind="old", tag=tag))
    finish_interrupted(path.parent, tag=tag, files=files)
    try:
        files.make_folder(temporary)
        fill(temporary)
        _sync_all(temporary, files)
        if path.exists():
            files.rename(path, old)
        files.rename(temporary, path)
    except Exception:
        with contextlib.suppress(OSError):
            finish_interrupted(path.parent, tag=tag, files=files)
        raise
    files.fsync_path(path.parent)
    if old.exists():
        files.rmtree(old)


def finish_interrupted(folder: Path, *, tag: str = TAG, files: Files = FILES) -> None:
    """Remove what a killed write in ``folder`` left behind, and put back what it had moved away."""
    ours = re.compile(rf"\.(tmp|old)-(.+)-{re.escape(tag)}")
    for name in files.listdir(folder):
        if not (found := ours.fullmatch(name)):
            continue
        kind, target = found[1], folder / found[2]
        if kind == "old" and not target.exists():
            files.rename(folder / name, target)
        elif is_folder(folder / name):
            files.rmtree(folder / name)
        else:
            files.unlink(folder / name)


def temporary_name(name: str, *, kind: str = "tmp", tag: str = TAG) -> str:
    """What a file or folder is called until it is whole (``tmp``), or once it is replaced (``old``)."""
    return f".{kind}-{name}-{tag}"


def _sync_all(folder: Path, files: Files) -> None:
    """Sync every file and folder below ``folder``: what filled it may not have."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            if not (Path(parent) / name).is_symlink():
                files.fsync_path(Path(parent) / name)
        files.fsync_path(Path(parent))
