"""Loader processes end with their run, and what goes wrong in one is told in one line that names the example."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import multiprocessing
import os
import select
import signal
import time
from contextlib import closing

import pytest

from finetune.data.loading import updates
from finetune.data.store import Draw
from finetune.errors import DataError, RankLostError
from finetune.training.lost import told_of_losses
from tests.forked import Acting, Child, ended_child, send
from tests.integration.test_signals import folder, go, go_on, last_line, left, place, task, whole

BAD = 17


class Doing:
    """A store that does something whenever one example is asked for."""

    def __init__(self, store, act):
        self.store, self.act = store, act

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.store, name)

    def __len__(self):
        return len(self.store)

    def batch(self, draws):
        if any(draw.index == BAD for draw in draws):
            self.act()
        return self.store.batch(draws)


class Loading(Acting):
    """Its training split does something at one example."""

    def load_split(self, name):
        store = self.task.load_split(name)
        return Doing(store, self.act) if name == "train" else store


def fail():
    raise LookupError("no such word\nat all")


def hang():
    time.sleep(1000)


def loaders() -> list[int]:
    return [process.pid for process in multiprocessing.active_children()]


def test_a_lost_loader_process_is_one_line(task, folder, whole):
    """That no process is left of it, the child itself tells: its end is waited for with all that it forked."""
    ended = ended_child(lambda: go(Acting(task, 4, lambda: os.kill(loaders()[0], signal.SIGKILL)), folder, workers=2))
    assert ended.code == 76 and ended.err.count("\n") == 1 and "a process that loads data " in ended.err
    assert last_line(folder) == ("failed", 76)
    go_on(task, folder, workers=2)
    assert left(folder) == whole


def test_signals_to_all_processes_of_a_run(task, folder, whole):
    """As a scheduler sends one, and a launcher below it another: the loader processes leave it to the run."""

    def both():
        for _ in range(2):
            os.killpg(0, signal.SIGTERM)
            time.sleep(0.2)  # two at once are one

    def grouped():
        os.setpgid(0, 0)
        go(Acting(task, 4, both), folder, workers=2)

    assert ended_child(grouped).code == 75
    go_on(task, folder)
    assert left(folder) == whole


def test_loader_processes_end_with_a_killed_run(task, folder, monkeypatch):
    """At once: by themselves they look for it every five seconds, and here once an hour."""
    monkeypatch.setattr("torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL", 3600)
    read, write = os.pipe()  # closes when the last process is gone
    child = Child(lambda: go(Acting(task, 4, send(signal.SIGKILL)), folder, workers=2))
    os.close(write)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert select.select([read], [], [], 30)[0]
    os.close(read)
    assert child.wait().code == -signal.SIGKILL


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_that_cannot_be_made_is_named(task, folder, workers):
    ended = ended_child(lambda: go(Loading(task, act=fail), folder, workers=workers))
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert f"error: example {BAD} (" in ended.err and f"train-26.csv line {BAD + 2}) cannot be made: " in ended.err
    assert "LookupError: no such word" in ended.err and "Traceback" not in ended.err
    assert last_line(folder) == ("failed", 2)


def test_the_traceback_of_a_loader_process_comes_along(task):
    """For ``--debug``."""
    store = Doing(task.load_split("train"), fail)
    with pytest.raises(DataError) as error:
        next(updates(store, lambda step: [[Draw(0, 0, BAD)]], steps=range(1), workers=1))
    assert "in fail" in error.value.__notes__[0]


def test_a_loader_process_killed_over_an_example_names_it(task, folder):
    """Wherever the run is when it hears of it; it knows the micro-batch, which is one example here."""
    one = {"workers": 2, "micro_batch": "1 examples"}
    ended = ended_child(lambda: go(Loading(task, act=send(signal.SIGKILL)), folder, **one))
    assert ended.code == 76 and ended.err.count("\n") == 1, ended
    assert f", while it made example {BAD} (" in ended.err and f"line {BAD + 2})" in ended.err
    assert last_line(folder) == ("failed", 76)
    go_on(task, folder, **one)


def test_a_loader_process_that_hangs_names_its_example_and_is_ended(task, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)  # torch waits so long for each
    store = Doing(task.load_split("train"), hang)
    made = updates(store, lambda step: [[Draw(0, 0, BAD - 2 + step)]], steps=range(9), workers=2, timeout_s=2)
    began = time.monotonic()
    with pytest.raises(RankLostError, match=rf"timed out after 2 seconds, while it made example {BAD} \("):
        with told_of_losses(), closing(made):
            for _ in range(2):
                next(made)
            pids = loaders()
            next(made)
    assert time.monotonic() - began < 60
    for pid in pids:  # neither running nor left as a zombie
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
