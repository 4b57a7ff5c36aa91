"""Saves that are written beside the training: what they hold, when they are on the disk, and how a run ends with one.

A save is held in flight by a disk that is slow to sync, until the test lets it go.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from finetune.checkpoints.errand import Errand
from finetune.checkpoints.reading import newest_good, read_checkpoint
from finetune.checkpoints.run_folder import open_run_folder
from finetune.errors import DivergedError, PreemptedError, StorageError
from finetune.policies import Checkpointing
from finetune.speed import Speed
from finetune.tasks.base import Output
from tests.forked import Acting, ended_child, send
from tests.integration.test_full_disks import limit
from tests.integration.test_resume import finished
from tests.integration.test_signals import left
from tests.runs import STRATEGIES, digest, history, image_task, run, text_task

SETTINGS = {
    "checkpoint": Checkpointing(every="2 steps", keep_last=9),
    "evaluate_every": "3 steps",
    "log_every": "1 steps",
}


def go(task, folder: Path, **changes):
    return run(task, output_dir=str(folder), **{**SETTINGS, **changes})


class SlowDisk:
    """Syncs of one checkpoint's files wait, in the thread that writes, until ``let_go``."""

    def __init__(self, monkeypatch, step: int):
        self._gate, self._name, self._fsync = threading.Event(), f"step-{step:06d}", os.fsync
        self.waits = threading.Event()  # until the write has come so far
        monkeypatch.setattr(os, "fsync", self._slow)

    def _slow(self, handle: int) -> None:
        is_file = self._name in os.readlink(f"/proc/self/fd/{handle}")
        if is_file and threading.current_thread() is not threading.main_thread():
            self.waits.set()
            assert self._gate.wait(60)
        self._fsync(handle)

    def let_go(self) -> None:
        self._gate.set()

    def let_go_soon(self) -> None:
        threading.Timer(0.3, self._gate.set).start()


def saved(folder: Path) -> dict:
    """Every checkpoint of a run: files byte for byte, documents but for times, place in the log, ancestry."""
    found = {}
    for path in sorted((folder / "checkpoints").glob("step-*")):
        one = read_checkpoint(path)
        progress = {key: value for key, value in one.documents["progress"].items() if key != "seconds"}
        files = {name.name: name.read_bytes() for name in path.glob("*.safetensors")}
        tensors = {stem: digest(part) for stem, part in one.tensors.items()}
        found[path.name] = (files, tensors, progress, one.documents["plan"], one.parent_step)
    return found


def writers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


@pytest.mark.parametrize("kind", [text_task, image_task])
@pytest.mark.parametrize("strategy", ["full", "gradual_unfreeze", "lora"])
def test_written_beside_the_training_is_what_the_loop_would_have_written(tmp_path, kind, strategy):
    task = kind(tmp_path)  # without kept images, which the second run would find, and say so in its log
    go(task, tmp_path / "plain", strategy=STRATEGIES[strategy], speed=Speed(async_save="off", image_store="off"))
    go(task, tmp_path / "async", strategy=STRATEGIES[strategy], speed=Speed(image_store="off"))
    assert len(saved(tmp_path / "plain")) >= 6
    assert saved(tmp_path / "async") == saved(tmp_path / "plain")
    assert not writers()


def test_training_goes_on_while_a_save_is_in_flight(tmp_path, monkeypatch):
    """And nothing of what it does meanwhile gets into the checkpoint: weights, moments, evaluations, log."""
    task = text_task(tmp_path)
    go(Acting(task), tmp_path / "plain", speed=Speed(async_save="off"), checkpoint=Checkpointing("4 steps", 9))
    disk, seen = SlowDisk(monkeypatch, 4), []

    def look():
        disk.waits.wait(60)
        seen.extend(path.name for path in (tmp_path / "async" / "checkpoints").glob("step-*"))
        disk.let_go()

    acting = Acting(task, 6, look, training=False)  # the evaluation after step 6, two updates later
    go(acting, tmp_path / "async", checkpoint=Checkpointing("4 steps", 9))
    assert seen == ["step-000003"]
    assert saved(tmp_path / "async") == saved(tmp_path / "plain")


def test_a_kill_while_a_save_is_in_flight_leaves_the_one_before(tmp_path, monkeypatch):
    task = text_task(tmp_path)
    go(Acting(task), tmp_path / "whole")
    disk = SlowDisk(monkeypatch, 4)

    def die():
        disk.waits.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended_child(lambda: go(Acting(task, 4, die), tmp_path / "cut")).code == -signal.SIGKILL
    assert newest_good(tmp_path / "cut" / "checkpoints").step == 3
    disk.let_go()
    go(Acting(task), tmp_path / "cut", existing="resume")
    assert left(tmp_path / "cut") == left(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stop_while_a_save_is_in_flight_waits_for_both(tmp_path, monkeypatch, number, code):
    task = text_task(tmp_path)
    go(Acting(task), tmp_path / "whole")
    disk = SlowDisk(monkeypatch, 4)

    def stop():
        disk.waits.wait(60)
        disk.let_go_soon()
        send(number)()

    assert ended_child(lambda: go(Acting(task, 4, stop), tmp_path / "cut")).code == code
    assert [*saved(tmp_path / "cut")] == [f"step-{step:06d}" for step in (2, 3, 4, 6)]
    go(Acting(task), tmp_path / "cut", existing="resume")
    assert finished(tmp_path / "cut") == finished(tmp_path / "whole")


class BrokenError(RuntimeError):
    pass


@pytest.mark.parametrize("fault", [BrokenError, KeyboardInterrupt])
def test_a_fault_of_the_loop_does_not_lose_the_save_in_flight(tmp_path, monkeypatch, fault):
    disk = SlowDisk(monkeypatch, 4)

    def fail():
        disk.waits.wait(60)
        disk.let_go_soon()
        raise fault

    with pytest.raises(fault):
        go(Acting(text_task(tmp_path), 4, fail), tmp_path / "run")
    assert not writers()
    assert newest_good(tmp_path / "run" / "checkpoints").step == 4
    open_run_folder(tmp_path / "run", resume=True).close()  # the folder was given back after the save


def test_a_failed_save_in_flight_is_told_of_when_the_loop_breaks(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch, 4)

    def fail():
        disk.waits.wait(60)
        for path in (tmp_path / "run" / "checkpoints").glob(".tmp-*/*"):
            path.unlink()  # somebody cleans up what is not theirs
        disk.let_go()
        raise BrokenError

    with (
        pytest.raises(BrokenError),
        pytest.warns(UserWarning, match=r"checkpoint of step 4 could not be written \(.*the newest one is: step 3"),
    ):
        go(Acting(text_task(tmp_path), 4, fail), tmp_path / "run")
    assert newest_good(tmp_path / "run" / "checkpoints").step == 3


class Diverging(Acting):
    """Not a number from step 5 on."""

    def forward(self, model, batch, progress):
        found = super().forward(model, batch, progress)
        if progress.step < 5 or not model.training:
            return found
        return Output(found.losses * float("nan"), found.weights, found.logits)


@pytest.mark.parametrize("newest", [3, 4])
def test_the_checkpoint_that_a_message_names_is_on_the_disk(tmp_path, newest):
    """The save of step 4 is in flight, or has failed, when the run diverges."""

    def diverge():
        full = (lambda: limit(10_000)) if newest == 3 else (lambda: None)
        go(Diverging(text_task(tmp_path), 3, full), tmp_path / "run")

    ended = ended_child(diverge)
    assert ended.code == DivergedError.exit_code
    assert f"go on from step {newest} " in ended.err
    assert ("the checkpoint of step 4 could not be written" in ended.err) == (newest == 3)
    assert newest_good(tmp_path / "run" / "checkpoints").step == newest


def test_a_stop_that_cannot_save_says_so(tmp_path):
    def stop():
        limit(10_000)
        send(signal.SIGTERM)()

    ended = ended_child(lambda: go(Acting(text_task(tmp_path), 3, stop), tmp_path / "run"))
    assert ended.code == StorageError.exit_code and "the newest one is: step 3" in ended.err.splitlines()[-1]


def test_last_save_is_on_the_disk_when_the_run_says_so(tmp_path):
    task = text_task(tmp_path)
    with pytest.raises(PreemptedError, match="a checkpoint is saved"):
        go(task, tmp_path / "run", stop_at=5)
    assert not writers()
    assert newest_good(tmp_path / "run" / "checkpoints").step == 5
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    offset = newest_good(tmp_path / "run" / "checkpoints").documents["progress"]["log_offset"]
    assert json.loads(log[:offset].splitlines()[-1])["step"] == 5
    assert history(tmp_path / "run")[-1]["ended"] == "preempted"


def test_an_interrupt_is_raised_only_when_the_save_is_over():
    over = threading.Event()
    errand = Errand(lambda: over.wait(60))
    for seconds, act in ((0.2, send(signal.SIGINT)), (0.5, over.set)):
        threading.Timer(seconds, act).start()
    with pytest.raises(KeyboardInterrupt):
        errand.outlast()
    assert over.is_set() and errand.result()
