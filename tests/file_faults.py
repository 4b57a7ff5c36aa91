"""Faults at file operations, which a dry run enumerates, so that a new operation is covered without a change here.

Toy runs are given a file system (``Watched``); in a real run, in a process of its own, all that goes through
the class ``Files`` is tapped.
"""

from __future__ import annotations

import errno
import inspect
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finetune.checkpoints.files import Files

REAL = Files()
CHANGING = {name for name in vars(Files) if not name.startswith("_")} - {"listdir", "size", "read"}
PAST = {"open", *(f"os.{name}" for name in ("mkdir", "rename", "remove", "rmdir", "symlink", "link", "truncate"))}
LOG = "log.jsonl"


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: an fsync costs 6 ms on a disk."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def place():
    with in_memory() as folder:
        yield folder


class Kill(BaseException):
    """Stands for SIGKILL: nothing of ours may catch it."""


def killed() -> None:
    raise Kill


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_done(name: str, arguments: tuple[Any, ...]) -> None:
    """Do a part of an operation that the kernel does not do at once."""
    if name == "write":
        os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
    if name == "rmtree":
        shutil.rmtree(next(iter(sorted(arguments[0].iterdir())), arguments[0]), ignore_errors=True)
        for path in sorted(arguments[0].iterdir())[::2]:
            path.unlink()


class Watched:
    """The real file system, with something done at operation number ``at`` (from 0)."""

    def __init__(self, at: int | None = None, act=None, *, names=frozenset(), partly: bool = False, lasting=True):
        self.at, self.act, self.names, self.partly, self.lasting = at, act, names, partly, lasting
        self.calls: list[str] = []

    def __getattr__(self, name):
        real = getattr(REAL, name)

        def call(*arguments):
            if self.names and name not in self.names:
                return real(*arguments)
            number = len(self.calls)
            self.calls.append(name)
            if self.at is not None and (number == self.at or (self.lasting and number > self.at)):
                self._fail(name, arguments, first=number == self.at)
            return real(*arguments)

        return call

    def _fail(self, name, arguments, *, first: bool):
        if first and self.partly:
            half_done(name, arguments)
        if name == "close":
            REAL.close(*arguments)  # the process is gone, and so are its open files
        self.act()


class Point(NamedTuple):
    """A place in a run: the same in every run of the same work, whatever its threads are at just then."""

    operation: str
    path: str  # below the run folder; a run's id is ID
    occurrence: int  # of this operation on this path, from 0
    half: bool = False  # it is half done


Before = Callable[[Point, tuple[Any, ...]], None]
After = Callable[[str, Any, tuple[Any, ...]], None]


def tap(root: Path, *, before: Before = lambda *_: None, after: After = lambda *_: None) -> None:
    """From here on, in this process, tell of each change to a run folder; only for a process that ends soon.

    Args:
        root: The run folder.
        before: Is given where the run is, and the arguments of the operation; of one that goes past ``Files`` (the
            interpreter tells of it by the names in ``PAST``), no arguments.
        after: Is given name, result and arguments of the operation, if it goes through ``Files``.
    """
    opened: dict[int, Path] = {}
    counts: Counter[tuple[str, str]] = Counter()

    def here(name: str, path: Path) -> Point:
        label = re.sub(r"[0-9a-f]{32}", "ID", os.path.relpath(path, root))
        counts[name, label] += 1
        return Point(name, label, counts[name, label] - 1)

    def is_ours(path: Path) -> bool:
        return path == root.parent or path.is_relative_to(root)

    def tapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(files: Files, *arguments: Any) -> Any:
            first = arguments[0]
            path = opened.get(first) if isinstance(first, int) else arguments[-1]
            if path is None or not is_ours(path):
                return real(files, *arguments)
            before(here(name, path), arguments)
            result = real(files, *arguments)
            if name in ("open_write", "open_append"):
                opened[result] = path
            if name == "close":
                del opened[first]
            after(name, result, arguments)
            return result

        return call

    for name in CHANGING:
        setattr(Files, name, tapped(name, getattr(Files, name)))
    _tap_past(lambda name, path: before(here(name, path), ()) if is_ours(path) else None)


def _tap_past(told: Callable[[str, Path], None]) -> None:
    """Tell of each change that does not go through ``Files``, as far as Python makes it."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in PAST and isinstance(arguments[0], str | os.PathLike) and not _goes_through_files():
            if event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                told(event, Path(arguments[0]))

    sys.addaudithook(hook)


def _goes_through_files() -> bool:
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename != inspect.getfile(Files):
        frame = frame.f_back
    return frame is not None


def points_of(calls: Sequence[Point]) -> list[Point]:
    """Where to strike: at every operation, and half way through those that the kernel does not do at once.

    Of the many writes of one file only before the first, half way through the middle one and before the last.
    """
    found: list[Point] = []
    count = Counter(call.path for call in calls if call.operation == "write")
    for call in calls:
        is_many = call.operation == "write" and call.path != LOG
        if not is_many or call.occurrence in (0, count[call.path] - 1):
            found.append(call)
        if call.operation in ("write", "rmtree") and (not is_many or call.occurrence == count[call.path] // 2):
            found.append(call._replace(half=True))
    return found


def die() -> None:
    """The kernel ends this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def at(point: Point, act: Callable[[], None] = die) -> Before:
    """For ``tap``: something happens at a point."""

    def before(here: Point, arguments: tuple[Any, ...]) -> None:
        if here == point._replace(half=False):
            if point.half:
                half_done(here.operation, arguments)
            act()

    return before


def nth(number: int, act: Callable[[], None] = die) -> Before:
    """For ``tap``: something happens at an operation by its number, from 0, of those that count."""
    seen: list[Point] = []

    def before(here: Point, _: tuple[Any, ...]) -> None:
        if is_counted(here):
            seen.append(here)
            if len(seen) == number + 1:
                act()

    return before


def is_counted(point: Point) -> bool:
    """Whether ``nth`` counts it: all writes of a file are one, but in the log, where each is a line."""
    return point.operation != "write" or point.occurrence == 0 or point.path == LOG
