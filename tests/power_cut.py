"""A disk that keeps for certain what was synced, and of the rest what it pleases: what a power cut could leave.

Every change of a folder that was not synced (a name made, removed, or moved) is kept or lost by itself; of a file's
data that were not synced all, none, or the first half may be there, or zeros in their place.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.file_faults import CHANGING, REAL

NUM_RANDOM = 20


class Link(NamedTuple):
    """A symbolic link."""

    pointee: str


class File:
    """A file as programs see it now, and as it is on the disk for certain."""

    def __init__(self, now: bytes = b"") -> None:
        self.now, self.disk = now, b""

    def image(self, keeps: Keeps) -> bytes:
        if self.now == self.disk or not self.now.startswith(self.disk):
            return self.now if keeps() else self.disk
        tail = self.now[len(self.disk) :]
        return self.disk + keeps.of((tail, b"", tail[: len(tail) // 2], bytes(len(tail))))


class Folder:
    """A folder: its entries now, those on the disk for certain, and the changes since."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {}
        self.disk: dict[str, Any] = {}
        self.changes: list[dict[str, Any]] = []  # each by itself is on the disk as a whole or not at all

    def change(self, entries: Mapping[str, Any]) -> None:
        """Make, replace or remove (None) entries in one step."""
        self.changes.append(dict(entries))
        self.now = _changed(self.now, entries)

    def sync(self) -> None:
        self.disk, self.changes = dict(self.now), []

    def image(self, keeps: Keeps) -> dict[str, Any]:
        entries = self.disk
        for change in self.changes:
            if keeps():
                entries = _changed(entries, change)
        return {name: node if isinstance(node, Link) else node.image(keeps) for name, node in entries.items()}


def _changed(entries: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    return {name: node for name, node in {**entries, **change}.items() if node is not None}


class Keeps:
    """What a power cut keeps of what was not synced: all, nothing, or by chance."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw

    def __call__(self) -> bool:
        return self._draw(2) == 0

    def of(self, ways: tuple[bytes, ...]) -> bytes:
        return ways[self._draw(len(ways))]


class Disk:
    """Records what is done below a folder.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._top, self._count = root, Folder(), 0
        self._open: dict[int, File] = {}
        self._seen: set[tuple[int, Any]] = set()

    def record(self, name: str, result: Any, arguments: tuple[Any, ...]) -> None:
        """Take in an operation that was done on the real files."""
        getattr(self, f"_{name}")(result, *arguments)

    def images(self, *, promised: int = 0, num_random: int = NUM_RANDOM) -> Iterator[dict[str, Any]]:
        """What a cut now could leave: all kept, all lost, and so many at random.

        Args:
            promised: What must be there by now; what was given out for the same is not given out again.
            num_random: So many.
        """
        self._count += 1
        ways = [lambda _: 0, lambda _: 1, *(random.Random(f"{self._count} {n}").randrange for n in range(num_random))]
        for way in ways:
            found = self._top.image(Keeps(way))
            if (key := (promised, _frozen(found))) not in self._seen:
                self._seen.add(key)
                yield found

    def _folder(self, path: Path) -> Folder:
        node = self._top
        for part in path.relative_to(self._root).parts:
            if part not in node.now:
                node.change({part: Folder()})  # made by other means
            node = node.now[part]
        return node

    def _open_write(self, handle: int, path: Path) -> None:
        file = File()
        self._folder(path.parent).change({path.name: file})
        self._open[handle] = file

    def _open_append(self, handle: int, path: Path) -> None:
        found = self._folder(path.parent).now.get(path.name)
        if found is None:
            self._open_write(handle, path)
        else:
            self._open[handle] = found

    def _write(self, _: None, handle: int, data: bytes | memoryview) -> None:
        self._open[handle].now += bytes(data)

    def _truncate(self, _: None, handle: int, size: int) -> None:
        self._open[handle].now = self._open[handle].now[:size]

    def _fsync(self, _: None, handle: int) -> None:
        self._open[handle].disk = self._open[handle].now

    def _close(self, _: None, handle: int) -> None:
        del self._open[handle]

    def _make_folder(self, _: None, path: Path) -> None:
        self._folder(path.parent).change({path.name: Folder()})

    def _symlink(self, _: None, pointee: Path, path: Path) -> None:
        self._folder(path.parent).change({path.name: Link(str(pointee))})

    def _rename(self, _: None, source: Path, target: Path) -> None:
        assert source.parent == target.parent, "two folders never change in one step on a disk"
        folder = self._folder(source.parent)
        folder.change({source.name: None, target.name: folder.now[source.name]})

    def _unlink(self, _: None, path: Path) -> None:
        self._folder(path.parent).change({path.name: None})

    def _rmtree(self, _: None, path: Path) -> None:
        folder = self._folder(path)
        for name in list(folder.now):
            folder.change({name: None})
        self._folder(path.parent).change({path.name: None})

    def _fsync_path(self, _: None, path: Path) -> None:
        if path.is_dir():
            self._folder(path).sync()
            return
        folder = self._folder(path.parent)
        if path.name not in folder.now:
            folder.change({path.name: File(path.read_bytes())})  # written by other means
        file = folder.now[path.name]
        file.disk = file.now


class Cut:
    """The real file system, which shows the disk after each change.

    Args:
        disk: Records.
        look: Is called after each change.
    """

    def __init__(self, disk: Disk, look: Callable[[], None]) -> None:
        self._disk, self._look = disk, look

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real = getattr(REAL, name)

        def call(*arguments: Any) -> Any:
            result = real(*arguments)
            if name in CHANGING:
                self._disk.record(name, result, arguments)
                self._look()
            return result

        return call


def _frozen(node: Any) -> Any:
    return tuple((name, _frozen(each)) for name, each in sorted(node.items())) if isinstance(node, dict) else node


def lay_out(image: Mapping[str, Any], into: Path) -> None:
    """Make the files of an image in a new folder."""
    into.mkdir()
    for name, node in image.items():
        if isinstance(node, Link):
            os.symlink(node.pointee, into / name)
        elif isinstance(node, bytes):
            (into / name).write_bytes(node)
        else:
            lay_out(node, into / name)
