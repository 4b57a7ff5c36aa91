"""Signals to one rank, to both, and to ranks at different steps: all stop at one step, saved, and go on exactly."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import os
import random
import signal

import pytest

from finetune.checkpoints.reading import newest_good
from tests.forked import Acting, ended_ranks, send
from tests.integration.test_signal_trials import but_kept
from tests.integration.test_signals import folder, go, last_line, left, place, task

STEPS = 10
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")


class Signalled(Acting):
    """Ranks get a signal, each in a forward of training at its own step.

    Args:
        task: The task.
        at: The step of each rank that gets one.
        act: What sends it.
    """

    def __init__(self, task, at, act):
        super().__init__(task)
        self.at, self.begin = dict(at), act

    def forward(self, model, batch, progress):
        rank = int(os.environ.get("RANK", "0"))
        if model.training and self.at.get(rank) == progress.step:
            del self.at[rank]
            self.begin()
        return self.task.forward(model, batch, progress)


def go_on_both(task, folder):
    return [e.code for e in ended_ranks(lambda: go(Signalled(task, {}, None), folder, existing="resume"))]


@pytest.fixture(scope="module")
def whole(place, task):
    """An uninterrupted run of two ranks."""
    go(Signalled(task, {}, None), place / "warm")
    assert go_on_both(task, place / "whole") == [0, 0]
    return left(place / "whole")


def drawn(seed):
    """Which ranks are signalled at which step, and how."""
    draw = random.Random(seed)
    first = draw.randrange(1, STEPS)  # 0 is also the clock of what comes before training
    kind = ("one", "one", "both", "apart")[seed % 4]
    order = draw.sample((0, 1), 2)
    apart = {"one": None, "both": 0, "apart": draw.randrange(1, 4)}[kind]
    at = {order[0]: first} if apart is None else {order[0]: first, order[1]: first + apart}
    return at, draw.choice(NAMES)


def trial(seed, task, folder, whole):
    at, name = drawn(seed)
    told = f"seed {seed}: {name} at {at}"
    code = 130 if name == "SIGINT" else 75
    ended = ended_ranks(lambda: go(Signalled(task, at, send(getattr(signal, name))), folder))
    assert [rank.code for rank in ended] == [code, code], (told, ended)
    assert ended[0].err.count("\n") == 1 and ended[1].err == "", (told, ended)  # said once
    saved, done = newest_good(folder / "checkpoints").step, min(at.values()) + 1
    assert saved in (done, min(done + 1, STEPS)) and f"ended after step {saved}," in ended[0].err, (told, saved, ended)
    assert last_line(folder)[1] == code
    assert go_on_both(task, folder) == [0, 0], told
    assert but_kept(left(folder), saved) == but_kept(whole, saved), told


def trials(seeds, task, folder, whole):
    for seed in seeds:
        path = folder.parent / f"trial-{seed}" / "run"
        path.parent.mkdir()
        trial(seed, task, path, whole)


def test_signals_to_any_ranks_at_any_steps(task, folder, whole):
    trials(range(1, 5), task, folder, whole)


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_signals_to_any_ranks_at_many_steps(task, folder, whole):
    trials(range(100, 140), task, folder, whole)


def test_a_signal_in_the_last_update(task, folder):
    at = Signalled(task, {1: STEPS - 1}, send(signal.SIGTERM))
    assert [ended.code for ended in ended_ranks(lambda: go(at, folder))] == [75, 75]


def test_a_signal_to_both_before_training(task, folder):
    """As launchers send it: nothing is left, and both say why they ended."""

    class Loading(Acting):
        def load_model(self):
            send(signal.SIGTERM)()

    assert [ended.code for ended in ended_ranks(lambda: go(Loading(task), folder))] == [75, 75]
    assert not folder.exists()
