"""A run may be stopped at any file operation, by a kill or a full disk, and goes on as if it had not.

The operations are enumerated by a dry run, so a new one is covered without a change here.
"""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

from finetune.checkpoints.atomic import finish_interrupted, write_file_atomically, write_folder_atomically
from finetune.checkpoints.log import read_log
from finetune.checkpoints.reading import newest_good, read_checkpoint
from finetune.checkpoints.retention import rotate, saved_steps
from finetune.checkpoints.run_folder import open_run_folder
from finetune.checkpoints.writing import write_checkpoint
from tests.file_faults import CHANGING, REAL, Kill, Watched, full, killed, place

SCORES = {1: 0.9, 2: 0.3, 3: 0.9, 4: 0.5}


def live(path: Path, files, acknowledged: list[int]) -> None:
    """A whole run, from wherever it stands: four steps, a checkpoint each, one last and one best kept."""
    with open_run_folder(path, resume=True, files=files) as folder:
        found = newest_good(folder.checkpoints, run_id=folder.run_id, files=files)
        keep = partial(_keep, folder, files)
        weights, start, scores = torch.ones(3), 0, {}
        folder.log.truncate_to(0 if found is None else found.documents["progress"]["log"])
        if found is not None:
            weights, start = found.tensors["model"]["w"], found.step
            scores = {step: score for step, score in found.documents["progress"]["scores"]}
        for step in range(start + 1, 5):
            weights = weights * 1.5 - step
            scores[step] = SCORES[step]
            folder.log.append({"step": step, "w": weights.tolist()})
            progress = {"scores": [[at, score] for at, score in scores.items()], "log": folder.log.sync()}
            write_checkpoint(
                folder.checkpoints,
                step,
                tensors={"model": {"w": weights}},
                documents={"progress": progress},
                run_id=folder.run_id,
                files=files,
            )
            acknowledged.append(step)
            keep(scores)
        keep(scores)  # once more on the way out: the kill may have come between the last save and this
        folder.write_document("metrics.json", {"best": max(scores.values())})
        folder.write_folder("model", lambda into: (into / "weights").write_text(str(weights.tolist())))


def _keep(folder, files, scores) -> None:
    rotate(folder.checkpoints, run_id=folder.run_id, scores=scores, keep_last=1, keep_best=1, files=files)


def state(path: Path) -> dict:
    """All that a run leaves, but for what names the run."""
    checkpoints = path / "checkpoints"
    found = {name: read_checkpoint(checkpoints / name) for name in os.listdir(checkpoints)}
    return {
        "names": sorted(set(os.listdir(path))),
        "log": read_log(path / "log.jsonl"),
        "best": os.readlink(path / "best"),
        "model": (path / "model" / "weights").read_text(),
        "metrics": (path / "metrics.json").read_text(),
        "checkpoints": {name: (one.tensors["model"]["w"].tolist(), one.documents) for name, one in found.items()},
    }


def uninterrupted(path: Path) -> tuple[dict, list[str]]:
    watched = Watched()
    live(path, watched, [])
    assert set(os.listdir(path / "checkpoints")) == {"step-000001", "step-000004"}
    return state(path), watched.calls


def assert_recoverable(path: Path, acknowledged: list[int]) -> None:
    """Before anything is swept: the newest good checkpoint loads, and none with a final name is damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = newest_good(path / "checkpoints")
    assert (found.step if found else 0) >= max(acknowledged, default=0)


@pytest.mark.parametrize("partly", [False, True])
def test_killed_at_every_operation(place, partly):
    expected, calls = uninterrupted(place / "whole")
    points = [at for at, name in enumerate(calls) if not partly or name in ("write", "rmtree")]
    assert len(points) > (10 if partly else 120)
    for at in points:
        path, acknowledged = place / f"run-{at}", []
        with pytest.raises(Kill):
            live(path, Watched(at, killed, partly=partly), acknowledged)
        assert_recoverable(path, acknowledged)
        live(path, REAL, acknowledged)
        assert state(path) == expected, f"killed at operation {at}, {calls[at]}"
        shutil.rmtree(path)


def test_killed_twice(place):
    expected, calls = uninterrupted(place / "whole")
    draw = random.Random(0)
    for trial in range(40):
        path, acknowledged = place / f"run-{trial}", []
        for at in (draw.randrange(len(calls)), draw.randrange(len(calls))):
            try:
                live(path, Watched(at, killed, partly=bool(trial % 2)), acknowledged)
            except Kill:
                assert_recoverable(path, acknowledged)
        live(path, REAL, acknowledged)
        assert state(path) == expected
        shutil.rmtree(path)


def in_child(work) -> int:
    """Run ``work`` in a forked process that skips every clean-up, and return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_processes_that_are_really_killed(place):
    expected, calls = uninterrupted(place / "whole")
    for at in range(3, len(calls), 11):
        path = place / f"run-{at}"
        die = Watched(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
        status = in_child(partial(live, path, die, []))
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert_recoverable(path, [])
        live(path, REAL, [])
        assert state(path) == expected
        shutil.rmtree(path)


def save(root: Path, step: int, files=REAL) -> None:
    write_checkpoint(
        root,
        step,
        tensors={"model": {"w": torch.full((64,), step)}},
        documents={"progress": {}},
        run_id="r",
        files=files,
    )
    rotate(root, run_id="r", scores={}, keep_last=1, keep_best=0, files=files)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_failing_disk_costs_that_save_only(place, fault, lasting):
    def fail():
        raise OSError(fault, os.strerror(fault))

    dry = Watched(names=CHANGING)
    save(place / "dry", 1)
    save(place / "dry", 2, dry)
    assert len(dry.calls) >= 20
    for at in range(len(dry.calls)):
        root = place / f"checkpoints-{at}"
        save(root, 1)
        failed = False
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                save(root, 2, Watched(at, fail, names=CHANGING, partly=True, lasting=lasting))
            except OSError as fault_seen:
                failed = fault_seen.errno == fault
        assert failed or warned, dry.calls[at]  # never silent
        assert_recoverable_root(root, 1)
        if failed and not lasting:
            assert not [name for name in os.listdir(root) if name.startswith(".tmp")]
        save(root, 3)
        assert saved_steps(root, run_id="r") == [3]


def test_what_was_moved_out_of_the_way_comes_back_if_the_save_fails(place):
    def fail():
        raise OSError(errno.EIO, "Input/output error")

    root = place / "checkpoints"
    write_checkpoint(root, 1, tensors={}, documents={}, run_id="another")
    with pytest.raises(OSError):
        save(root, 1, Watched(1, fail, names={"rename"}, lasting=False))
    assert os.listdir(root) == ["step-000001"] and newest_good(root).run_id == "another"


def assert_recoverable_root(root: Path, least: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_good(root).step >= least


def test_a_write_that_the_system_cuts_short(place):
    root = place / "checkpoints"
    save(root, 1)

    def write_with_a_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            tensors = {"model": {"w": torch.zeros(100_000)}}
            write_checkpoint(root, 2, tensors=tensors, documents={}, run_id="r")
        except OSError as fault:
            (root.parent / "told").write_text(errno.errorcode[fault.errno])

    in_child(write_with_a_limit)
    assert (root.parent / "told").read_text() == "EFBIG"
    assert os.listdir(root) == ["step-000001"]


def test_a_file_is_the_old_or_the_new_one(place):
    dry = Watched()
    write_file_atomically(place / "plan.json", b"old", files=dry)
    for at in range(len(dry.calls)):
        write_file_atomically(place / "plan.json", b"old")
        with pytest.raises(Kill):
            write_file_atomically(place / "plan.json", b"new!", files=Watched(at, killed, partly=True))
        assert (place / "plan.json").read_bytes() in (b"old", b"new!")
    write_file_atomically(place / "plan.json", b"new!")
    assert os.listdir(place) == ["plan.json"]


@pytest.mark.parametrize("act", [killed, full])
def test_a_folder_is_the_old_or_the_new_one(place, act):
    def filled(text):
        return lambda into: [(into / name).write_text(text) for name in ("a", "b")]

    model = place / "model"
    write_folder_atomically(model, filled("old"))
    dry = Watched()
    write_folder_atomically(model, filled("old"), files=dry)
    for at in range(len(dry.calls)):
        write_folder_atomically(model, filled("old"))
        with pytest.raises((Kill, OSError)):
            write_folder_atomically(model, filled("new"), files=Watched(at, act, partly=True))
        finish_interrupted(place)
        assert [(model / name).read_text() for name in ("a", "b")] in (["old"] * 2, ["new"] * 2), dry.calls[at]
        assert os.listdir(place) == ["model"]


def fail_halfway(into: Path) -> None:
    (into / "a").write_text("new")
    raise RuntimeError


def test_a_folder_whose_filling_fails_is_left_as_it_was(place):
    write_folder_atomically(place / "model", lambda into: (into / "a").write_text("old"))
    with pytest.raises(RuntimeError):
        write_folder_atomically(place / "model", fail_halfway)
    assert os.listdir(place) == ["model"] and (place / "model" / "a").read_text() == "old"
