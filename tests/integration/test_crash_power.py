"""A power cut after any file operation loses no checkpoint that was reported saved, and the run goes on from there."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import json
import shutil
import threading
import warnings
from pathlib import Path

import pytest

from finetune.checkpoints.atomic import write_file_atomically, write_folder_atomically
from finetune.checkpoints.reading import newest_good, read_checkpoint
from finetune.checkpoints.run_folder import read_run_id
from tests.crashed_runs import Case, Runs, assert_loads, remains
from tests.file_faults import REAL, in_memory, place, tap
from tests.forked import told_by_child
from tests.integration.test_crash_points import assert_recoverable, live, state
from tests.power_cut import Cut, Disk, lay_out

CASES = [Case("text", "full", "off"), Case("text", "full", "auto")]


def check_images(place: Path) -> int:
    """Run the toy, and go on from whatever a cut after each of its operations could leave."""
    live(place / "whole", REAL, [])
    expected, acknowledged, looked = state(place / "whole"), [], []
    folder = place / "disk"
    folder.mkdir()
    disk = Disk(folder)

    def look() -> None:
        for image in disk.images(promised=len(acknowledged)):
            looked.append(image)
            into = place / "image"
            lay_out(image, into)
            path = into / "run"
            if path.exists():
                check_whole(path, expected)
                assert_recoverable(path, acknowledged)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a rotten line of the log
                    live(path, REAL, acknowledged=[])
                assert state(path) == expected
            else:
                assert not acknowledged
            shutil.rmtree(into)

    live(folder / "run", Cut(disk, look), acknowledged)
    assert acknowledged == [1, 2, 3, 4]
    return len(looked)


def check_whole(path: Path, expected: dict) -> None:
    """Whatever carries a final name is whole, before anything is swept or put back."""
    for name in ("metrics.json", ".run.json"):
        assert not (path / name).exists() or json.loads((path / name).read_bytes())
    assert not (path / "model").exists() or (path / "model" / "weights").read_text() == expected["model"]
    assert not (path / "checkpoints").exists() or all(
        read_checkpoint(each) for each in (path / "checkpoints").glob("step-*")
    )
    assert not (path / "checkpoints").exists() or read_run_id(path)  # checkpoints of nobody could not be resumed


def test_power_cut_after_every_operation(place):
    assert check_images(place) > 200


def test_what_a_finished_run_leaves_is_on_the_disk(place):
    live(place / "whole", REAL, [])
    (place / "disk").mkdir()
    disk = Disk(place / "disk")
    live(place / "disk" / "run", Cut(disk, lambda: None), [])
    lost = list(disk.images(num_random=0))[-1]  # all that was not synced
    lay_out(lost, place / "image")
    forgive(place / "image" / "run")
    assert state(place / "image" / "run") == state(place / "whole")


def forgive(path: Path) -> None:
    """What a power cut may leave of a finished run, which nobody opens again: deletions half done, and no lock."""
    (path / ".lock").touch()
    for each in (path / "checkpoints").glob(".del-*"):
        shutil.rmtree(each)  # its name was taken away for certain


@pytest.mark.parametrize("is_folder", [False, True])
def test_power_cut_while_something_is_replaced(place, is_folder):
    folder, done, looked = place / "disk", [None], []
    folder.mkdir()
    disk = Disk(folder)

    def look() -> None:
        for image in disk.images(promised=len(done)):
            looked.append(image)
            found = image.get("x") or image.get(".old-x-finetune")  # which the next owner puts back
            found = found.get("a") if is_folder and found is not None else found
            assert found in (done[-1], b"old", b"new!"), image
            assert done[-1] is None or found is not None
            assert done[-1] != b"new!" or found == b"new!"

    cut = Cut(disk, look)
    for text in (b"old", b"new!"):
        if is_folder:
            write_folder_atomically(folder / "x", lambda into, text=text: (into / "a").write_bytes(text), files=cut)
        else:
            write_file_atomically(folder / "x", text, files=cut)
        done.append(text)
        look()
    assert len(looked) > 10


@pytest.fixture(scope="module")
def runs():
    with in_memory() as place:
        yield Runs(place)


def images_of_a_run(runs: Runs, case: Case, most: int) -> list:
    """What a cut could leave of a real run after each of its operations, and the newest checkpoint reported saved.

    Args:
        runs: Of the case.
        case: What runs.
        most: How many of them, evenly spaced; 0: all.
    """
    runs.whole(case)
    top = runs.place / f"disk-{'-'.join(case)}"
    top.mkdir()
    disk, found, lock, steps = Disk(top), [], threading.Lock(), [0, 0]

    def after(name, result, arguments):
        with lock:
            disk.record(name, result, arguments)
            if name == "rename" and arguments[1].name.startswith("step-"):
                steps[0] = int(arguments[1].name.removeprefix("step-"))
            if name == "fsync_path" and arguments[0].name == "checkpoints":
                steps[1] = steps[0]
            if name != "write":  # there are a thousand, and what they leave is in doubt until the sync anyway
                found.extend((steps[1], image) for image in disk.images(promised=steps[1], num_random=2))

    def work():
        tap(top / "run", after=after)
        runs.go(case, top / "run")
        step = max(1, len(found) // most) if most else 1
        return [*found[::step], (steps[1], next(disk.images(promised=-1, num_random=0)))]  # and all that it wrote

    return told_by_child(work)


def check_run(runs: Runs, case: Case, images: list) -> None:
    for step, image in images:
        into = runs.place / "image"
        lay_out(image, into)
        assert_loads(into / "run", step)
        runs.go_on(case, into / "run")
        forgive(into / "run")
        assert remains(into / "run") == runs.whole(case)
        shutil.rmtree(into)


@pytest.mark.filterwarnings("ignore:.*such lines are passed over")
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_power_cut_in_a_run(runs, case):
    check_run(runs, case, images_of_a_run(runs, case, 6))


@pytest.mark.drill
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:.*such lines are passed over")
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_power_cut_anywhere_in_a_run(runs, case):
    images = images_of_a_run(runs, case, 0)
    assert len(images) >= 150
    check_run(runs, case, images)
