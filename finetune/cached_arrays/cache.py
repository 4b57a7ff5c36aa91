"""Entries by key: found, made within a budget, placed in one step."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .claims import claim, drop, is_held, remove_dead
from .entry import (
    MANIFEST,
    NAME,
    checked,
    file_of,
    is_mapped,
    map_file,
    num_bytes,
    opened,
    plain,
    reserve,
    sync,
    write_manifest,
)

if TYPE_CHECKING:
    import numpy as np

    from .entry import Shapes

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


class CacheUnavailable(Exception):  # noqa: N818  # not an error: the caller goes on without a cache
    """Nothing can be kept here; the text is the reason, for the plan and the log."""


def folder_of(setting: str) -> Path:
    """Where caches are: ``setting``, else ``$FINETUNE_CACHE``, else ``finetune`` in the user's cache folder."""
    if chosen := setting or os.environ.get("FINETUNE_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "finetune"


class ArrayCache:
    """Arrays by key, in a folder that any number of processes share.

    Args:
        folder: Made when the first entry is.
        max_bytes: Of all entries together; the least recently used go first, those this process reads never.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def find(self, key: str) -> dict[str, np.memmap] | None:
        """The arrays of an entry, read-only and checked to the last bit; None where there is no such entry.

        A damaged entry is removed, with one warning that names it.
        """
        entry = self._entry(key)
        try:
            arrays = checked(entry, key)
            if arrays is not None:
                _touch(entry)
            return arrays
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            if not entry.is_dir():
                return None  # another process has just made room
            removed = "It was removed, and is made again" if self._remove(entry) else "It is not used"
            warnings.warn(f"the cache entry {entry} is damaged ({fault}). {removed}.", stacklevel=2)
            return None

    def create(self, key: str, shapes: Shapes) -> Draft:
        """Make room for an entry, and give it out to be filled.

        Args:
            key: What the arrays are made from; a name that a file can have.
            shapes: Shape and type of each array.

        Raises:
            CacheUnavailable: The folder cannot be written, the disk is full, or the budget is too small.
        """
        shapes = plain(shapes)
        needed = sum(num_bytes(*form) for form in shapes.values())
        try:
            for folder in (self._entries, self._drafts):
                folder.mkdir(parents=True, exist_ok=True)
            remove_dead(self._drafts)
            self._make_room(needed)
            free = _free_bytes(self.folder)
            if needed > free:
                raise CacheUnavailable(
                    f"the disk of the cache folder {self.folder} has {_shown(free)} left, and {_shown(needed)} "
                    "are needed"
                )
            return Draft(self, key, shapes)
        except OSError as fault:
            raise _unwritable(self.folder, fault) from fault

    @property
    def _entries(self) -> Path:
        return self.folder / "entries"

    @property
    def _drafts(self) -> Path:
        return self.folder / "drafts"

    def _entry(self, key: str) -> Path:
        assert NAME.fullmatch(key), key
        return self._entries / key

    def _make_room(self, needed: int) -> None:
        """Remove what was not used for longest, until ``needed`` bytes fit into the budget.

        Raises:
            CacheUnavailable: They never will.
        """
        if needed > self.max_bytes:
            raise CacheUnavailable(f"one entry takes {_shown(needed)}, and the budget is {_shown(self.max_bytes)}")
        entries = sorted(_usage(path) for path in self._entries.iterdir())
        total = needed + sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.max_bytes:
                return
            if not is_mapped(path) and self._remove(path):
                total -= size
        if total > self.max_bytes:
            raise CacheUnavailable(
                f"{_shown(needed)} are needed, what this run reads takes {_shown(total - needed)} already, and the "
                f"budget is {_shown(self.max_bytes)}"
            )

    def _remove(self, entry: Path) -> bool:
        """Take an entry away in one step, then remove its files."""
        try:
            self._drafts.mkdir(parents=True, exist_ok=True)
            folder, lock = claim(self._drafts)
            try:
                os.rename(entry, folder)
            finally:
                drop(folder, lock)
        except FileNotFoundError:
            return True  # by another process
        except OSError:
            return False
        return True


class Draft:
    """An entry that is being written, seen by nobody until ``commit``.

    ``arrays`` are writable maps of its files, in ``folder``.
    """

    def __init__(self, cache: ArrayCache, key: str, shapes: Shapes) -> None:
        self._cache = cache
        self._key = key
        self._entry = cache._entry(key)
        self._shapes = shapes
        self._lock: int | None
        self.folder, self._lock = claim(cache._drafts)
        try:
            self.folder.mkdir()
            for name, form in shapes.items():
                reserve(file_of(self.folder, name), num_bytes(*form))
            self.arrays = open_draft(self.folder, shapes)
        except BaseException:
            self.discard()
            raise

    def commit(self) -> dict[str, np.memmap]:
        """Make this the entry of its key, durably; the arrays come back read-only.

        Where another process was first, the arrays are those of its entry.

        Raises:
            CacheUnavailable: It could not be written; the draft is gone.
        """
        try:
            for array in self.arrays.values():
                array.flush()
            write_manifest(self.folder, self._key, self._shapes)
            arrays = self._placed()
            self.discard()
        except OSError as fault:
            self.discard()
            raise _unwritable(self._cache.folder, fault) from fault
        try:
            self._cache._make_room(0)  # others may have written since ``create``
        except (CacheUnavailable, OSError):
            pass  # the next one that is created says so
        return arrays

    def discard(self) -> None:
        """Give up what was not committed."""
        self.arrays = {}
        if self._lock is not None and is_held(self._lock):
            drop(self.folder, self._lock)
        self._lock = None

    def _placed(self) -> dict[str, np.memmap]:
        """Rename the draft into its place; where a good entry is there already, take that one."""
        while True:
            try:
                os.rename(self.folder, self._entry)
            except OSError as fault:
                if fault.errno not in _TAKEN:
                    raise
                if (found := self._cache.find(self._key)) is not None:
                    return found
                if self._entry.exists():  # damaged, and it could not be removed
                    raise
            else:
                sync(self._entry.parent)
                return opened(self._entry, self._shapes)


def open_draft(folder: Path, shapes: Shapes) -> dict[str, np.memmap]:
    """The writable arrays of a draft of another process, which alone commits it when all have written."""
    shapes = plain(shapes)
    for name, form in shapes.items():
        size = file_of(folder, name).stat().st_size
        assert size == max(num_bytes(*form), 1), f"{name} of {folder} has {size} bytes, not those of {form}"
    return {name: map_file(file_of(folder, name), "r+", *form) for name, form in shapes.items()}


def _touch(entry: Path) -> None:
    """Note that an entry was used; whoever may only read the folder cannot."""
    try:
        os.utime(entry / MANIFEST)
    except OSError:
        pass


def _usage(entry: Path) -> tuple[float, int, Path]:
    """When an entry was last used, and its bytes; a folder without a manifest is the first to go."""
    used, size = 0.0, 0
    try:
        for file in os.scandir(entry):
            found = file.stat(follow_symlinks=False)
            size += found.st_size
            if file.name == MANIFEST:
                used = found.st_mtime
    except (FileNotFoundError, NotADirectoryError):
        pass  # removed by another process
    return used, size, entry


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _unwritable(folder: Path, fault: OSError) -> CacheUnavailable:
    return CacheUnavailable(f"the cache folder {folder} cannot be written ({fault.strerror or fault})")


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
