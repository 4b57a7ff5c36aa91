"""A disk that fails, at any operation of a real run: it goes on or ends with 74, and what was saved stays good."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finetune.checkpoints.files import Files
from finetune.checkpoints.reading import newest_good
from finetune.errors import PreemptedError
from finetune.policies import Checkpointing
from finetune.speed import Speed
from tests.forked import Acting, Ended, ended_child, ended_ranks, side_by_side, told_by_child
from tests.integration.test_resume import finished
from tests.runs import run, text_task

FAULTS = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "EACCES")
SETTINGS = {
    "length": "6 steps",
    "checkpoint": Checkpointing(every="2 steps", keep_last=1),
    "evaluate_every": "3 steps",
    "log_every": "2 steps",
}
WAYS = {"sync": Speed(async_save="off"), "async": Speed()}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def go(place: Path, folder: Path, **changes: Any) -> None:
    run(Acting(text_task(place)), output_dir=str(folder), existing="resume", **{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def whole(place: Path) -> tuple:
    go(place, place / "whole")
    return finished(place / "whole")


@pytest.fixture(scope="module")
def begun(place: Path, whole: tuple) -> dict[str, Path | None]:
    """Where a run under test begins: nowhere, or after step 3, with a damaged checkpoint of step 4 to be set aside."""
    folder = place / "begun"
    with pytest.raises(PreemptedError):
        go(place, folder, stop_at=4, checkpoint=Checkpointing(every="1 steps", keep_last=9))
    (folder / "checkpoints" / "step-000004" / "model.safetensors").write_bytes(b"rot")
    return {"new": None, "resumed": folder}


def at_every_operation(act: Callable[[int, str], None]) -> None:
    """Call ``act`` with number and name of every operation of this process on files of runs, before it is done."""
    count, lock = iter(range(10**9)), threading.Lock()
    for name in [name for name in vars(Files) if not name.startswith("_")]:
        real = getattr(Files, name)

        def watched(self: Files, *arguments: Any, _real: Any = real, _name: str = name) -> Any:
            with lock:
                number = next(count)
            if _name == "close":
                _real(self, *arguments)  # a file whose closing fails is closed
                act(number, _name)
                return None
            act(number, _name)
            return _real(self, *arguments)

        setattr(Files, name, watched)


def operations(place: Path, start: Path | None, speed: Speed) -> list[str]:
    """The names of all operations of a run, in order."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = copied(start, Path(folder) / "run")

        def work() -> list[str]:
            names: dict[int, str] = {}
            at_every_operation(names.__setitem__)
            go(place, path, speed=speed)
            return [names[number] for number in sorted(names)]

        return told_by_child(work)


def copied(start: Path | None, path: Path) -> Path:
    if start is not None:
        shutil.copytree(start, path, symlinks=True)
    return path


def points(names: list[str]) -> list[int]:
    """Where a fault makes a difference: of writes in a row the first, one within, and the last."""
    found: list[int] = []
    for name, group in groupby(range(len(names)), key=names.__getitem__):
        row = list(group)
        found += row if name != "write" else sorted({row[0], row[len(row) // 2], row[-1]})
    return found


class Fault(NamedTuple):
    """What fails, and where."""

    start: str  # of ``begun``
    way: str
    at: int  # the number of the operation
    operation: str
    kind: str
    lasting: bool


def failing(place: Path, path: Path, fault: Fault) -> Ended:
    """How a run ends on whose disk an operation fails, and each one after it if that lasts."""
    number, struck = getattr(errno, fault.kind), path.parent / "struck"

    def act(now: int, name: str) -> None:
        if now == fault.at or (fault.lasting and now > fault.at and name != "close"):
            struck.touch()
            raise OSError(number, os.strerror(number))

    def work() -> None:
        at_every_operation(act)
        go(place, path, speed=WAYS[fault.way])

    ended = ended_child(work)
    assert struck.exists()
    return ended


def check(place: Path, whole: tuple, begun: dict[str, Path | None], fault: Fault) -> int:
    """The exit code of the run that it struck."""
    try:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            path = copied(begun[fault.start], Path(folder) / "run")
            ended = failing(place, path, fault)
            assert_told(ended)
            assert_good(path, 3 if begun[fault.start] is not None else 0)
            if ended.code == 74:
                assert ended.err.splitlines()[-1].startswith("error: ")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what the fault cost
                    go(place, path)
            assert finished(path) == whole, ended.err
            return ended.code
    except AssertionError as error:
        raise AssertionError(f"{fault}: {error}") from error


def assert_told(ended: Ended) -> None:
    assert ended.code in (0, 74), ended.err
    assert "Traceback" not in ended.err and "unexpected" not in ended.err, ended.err


def assert_good(path: Path, least: int) -> None:
    """There is still a checkpoint to go on from, of that step or a later one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the damaged one that was there before
        found = newest_good(path / "checkpoints")
    assert (found.step if found is not None else 0) >= least


def faults(place: Path, begun: dict[str, Path | None], way: str) -> list[Fault]:
    """Every operation of a new run and of a resumed one with every fault, once or for good."""
    found = []
    for start, path in begun.items():
        names = operations(place, path, WAYS[way])
        assert len(points(names)) > 100
        for at in points(names):
            for number, kind in enumerate(FAULTS):
                found.append(Fault(start, way, at, names[at], kind, lasting=(at + number) % 2 == 0))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_at_any_operation(place, whole, begun, way):
    """One of each kind of operation, drawn with its fault; all of them are a drill."""
    todo = faults(place, begun, way)
    random.Random(way).shuffle(todo)
    chosen = {fault.operation: fault for fault in todo}
    assert len(chosen) >= 13
    for fault in chosen.values():
        check(place, whole, begun, fault)


@pytest.mark.drill
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("way", WAYS)
def test_each_fault_at_each_operation(place, whole, begun, way, kind):
    todo = [fault for fault in faults(place, begun, way) if fault.kind == kind]
    codes = side_by_side(lambda fault: check(place, whole, begun, fault), todo, seconds=7200)
    assert len(codes) == len(todo) > 400
    print({code: codes.count(code) for code in sorted(set(codes))})


@pytest.mark.parametrize(
    ("operation", "words"),
    [("read", "cannot be used"), ("truncate", "cannot be written"), ("rename", "cannot be written")],
)
def test_a_fault_of_a_resume_ends_all_ranks(place, begun, tmp_path, operation, words):
    """Of opening, of cutting the log back, of setting aside: rank 0 meets it, and both end with its word."""
    path = copied(begun["resumed"], tmp_path / "run")

    def fail(_: int, name: str) -> None:
        if name == operation:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def work() -> None:
        if os.environ["RANK"] == "0":
            at_every_operation(fail)
        go(place, path)

    ended = ended_ranks(work)
    assert [one.code for one in ended] == [74, 74], ended
    assert [one.err.count("error: ") for one in ended] == [1, 0] and words in ended[0].err
    assert_told(ended[0])
    assert_good(path, 3)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """A file system in memory that can be given another size (in KiB)."""
    made: list[Path] = []

    def of_size(kib: int) -> Path:
        options = f"size={kib}k" if not made else f"remount,size={kib}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
        made.append(tmp_path)
        return tmp_path

    yield of_size
    if made:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("kib", [64, 400, 800, 1100, 1400])
def test_a_disk_that_is_really_full(place, whole, small_disk, kib):
    """Full from the start, in the first save, in a later one; with the file system's own word for it."""
    path = small_disk(kib) / "run"
    ended = ended_child(lambda: go(place, path))
    assert_told(ended)
    good = newest_good(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    small_disk(100 * 1024)
    if ended.code == 74:
        assert "No space left on device" in ended.err
        assert not list(path.glob("checkpoints/.tmp*"))
        go(place, path)
    assert finished(path) == whole
    assert good is None or good.step >= 2
