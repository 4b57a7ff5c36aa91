"""Signals at moments drawn by chance in every phase of a run: it saves at the next boundary or the one after."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import os
import random
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

import finetune.evaluation
from finetune.checkpoints.reading import newest_good
from finetune.training.ranks import Ranks
from finetune.training.saving import Saver
from finetune.training.signals import StopRequests
from tests.forked import Acting, ended_child, send
from tests.integration.test_signals import (
    folder,
    go,
    last_line,
    left,
    place,
    task,
    without_evaluation,
)
from tests.runs import replaced

STEPS = 10
PHASES = ("load", "step", "evaluation", "save", "finish")
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")
LATER = {"load": 2000, "step": 400, "evaluation": 400, "save": 400, "finish": 200}  # calls, at most


class Noting(Acting):
    """Acts at a phase, and keeps in a file which update trained last.

    What it is told of training, saves and gathers, ``watched`` tells it.

    Args:
        task: The task.
        phase: One of ``PHASES``.
        at: Which time it comes to that phase, from 0; for an update its step.
        act: What it does then.
        file: For the number of the last update, from 0.
        rank: Only there.
    """

    def __init__(self, task, phase, at, act, file, rank=0):
        super().__init__(task, rank=rank)
        self.phase, self.left, self.begin, self.file = phase, at, act, file
        self.is_training = False  # the forwards of its preparation are none of updates

    def trains(self):
        self.is_training = True

    def came(self, phase):
        if phase != self.phase or int(os.environ.get("RANK", "0")) != self.rank:
            return
        self.left -= 1
        if self.left == -1:
            self.begin()

    def load_model(self):
        self.came("load")
        return self.task.load_model()

    def forward(self, model, batch, progress):
        if self.is_training and model.training:
            self.file.write_text(str(progress.step))
        if self.is_training:
            self.came("step" if model.training else "evaluation")
        return self.task.forward(model, batch, progress)


def soon(calls, act):
    """Do it after so many more calls and returns of Python functions, wherever that is."""
    left = [calls]

    def count(*_):
        left[0] -= 1
        if left[0] <= 0:
            sys.setprofile(None)
            act()

    sys.setprofile(count)


def before(owner, name, act):
    """Have a method act first."""
    plain = getattr(owner, name)

    def acting(*given, **named):
        act()
        return plain(*given, **named)

    setattr(owner, name, acting)


def watched(noting):
    """Let it know how its run stands; in a child that ends with the test."""
    before(StopRequests, "defer", noting.trains)
    before(Saver, "save", partial(noting.came, "save"))
    before(Saver, "load_best", partial(noting.came, "finish"))
    before(Ranks, "rows", lambda: noting.is_training and noting.came("gather"))
    return noting


def finish(task, folder):
    go(Noting(task, "never", 0, None, folder.parent / "trained"), folder, existing="resume")


def but_kept(found, stopped):
    """All that is left but which of the older checkpoints are: the one at which it stopped may be among them."""
    found = [*found]
    found[4] = [name for name in found[4] if not name.startswith("step-")]
    return without_evaluation(found) if stopped == STEPS else found


def trial(seed, task, folder, whole):
    draw = random.Random(seed)
    phase, name = PHASES[seed % len(PHASES)], draw.choice(NAMES)
    at = {"step": draw.randrange(STEPS), "evaluation": draw.randrange(4), "save": draw.randrange(5)}.get(phase, 0)
    to_all, calls = draw.random() < 0.3, draw.randrange(LATER[phase])
    trained, when = folder.parent / "trained", folder.parent / "when"
    told = f"seed {seed}: {name} to {'all' if to_all else 'it'}, {calls} calls into {phase} {at}"

    def act():
        when.write_text(trained.read_text() if trained.exists() else "-1")
        (os.killpg if to_all else os.kill)(0 if to_all else os.getpid(), getattr(signal, name))

    def signalled():
        os.setpgid(0, 0)
        noting = watched(Noting(task, phase, at, partial(soon, calls, act), trained))
        go(noting, folder, workers=2 if to_all else 0)

    ended = ended_child(signalled)  # fails where a process is left
    saved = newest_good(folder / "checkpoints") if folder.exists() else None
    if ended.code == 0:  # the training was over: a signal changes nothing about its end
        assert phase == "finish" and left(folder) == whole, (told, ended)
        return 0
    assert ended.code == (130 if name == "SIGINT" else 75) and ended.err.count("\n") == 1, (told, ended)
    if not trained.exists() and saved is None:
        assert phase == "load" and "before training began" in ended.err or "interrupted" in ended.err, (told, ended)
        finish(task, folder)
        assert left(folder) == whole, told
        return ended.code
    step = int(when.read_text()) + 1  # the next boundary when the signal came
    assert saved is not None and saved.step in (step, min(step + 1, STEPS)), (told, saved, ended)
    assert last_line(folder)[1] == ended.code and f"ended after step {saved.step}" in ended.err, (told, ended)
    finish(task, folder)
    assert but_kept(left(folder), saved.step) == but_kept(whole, saved.step), told
    return ended.code


@pytest.fixture(scope="module")
def whole(place, task):
    """As the children train it: a task of another name is another plan."""
    finish(task, place / "whole")
    return left(place / "whole")


def trials(seeds, task, folder, whole):
    codes = []
    for seed in seeds:
        path = folder.parent / f"trial-{seed}" / "run"
        path.parent.mkdir()
        codes.append(trial(seed, task, path, whole))
    assert sum(code != 0 for code in codes) >= 0.7 * len(codes), codes
    return codes


def test_a_signal_at_any_moment(task, folder, whole):
    trials(range(10), task, folder, whole)


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_a_signal_at_many_moments(task, folder, whole):
    codes = trials(range(100, 300), task, folder, whole)
    print({code: codes.count(code) for code in sorted(set(codes))})


@pytest.fixture
def paused(monkeypatch):
    """Evaluations of a test are short: they ask after every batch."""
    monkeypatch.setattr(finetune.evaluation, "_PAUSE_EVERY", 1)


def test_a_long_evaluation_is_left_for_a_signal(task, folder, whole, paused):
    """And comes first when the run goes on."""
    second = Noting(task, "evaluation", 1, send(signal.SIGTERM), folder.parent / "trained")  # after step 6
    ended = ended_child(lambda: go(watched(second), folder))
    assert ended.code == 75 and "ended after step 6" in ended.err
    finish(task, folder)
    assert left(folder) == whole


def test_a_long_scoring_at_the_end_is_left_for_a_signal(task, folder, paused):
    """All is trained and saved; a resume scores what is left."""
    task = replaced(task, data=replaced(task.data, test=task.data.validation))

    class Scoring(Acting):
        def forward(self, model, batch, progress):
            if progress.evaluations and progress.evaluations[-1].step == progress.step == STEPS:
                self.act()
            return self.task.forward(model, batch, progress)

    ended = ended_child(lambda: go(Scoring(task, act=send(signal.SIGTERM)), folder))
    assert ended.code == 75 and "ended after step 10" in ended.err and not (folder / "metrics.json").exists()
    go(Scoring(task), folder, existing="resume")
    assert last_line(folder) == ("finished", 0) and (folder / "metrics.json").exists()
