"""Invariant 14 as a GPU has it: the figures of an update are read during the next, and nothing else changes.

A CPU has them at once; here it is made to wait, which is the same code but for the copy.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from finetune.errors import DivergedError, PreemptedError
from finetune.optimizers import SGD, AdamW
from finetune.policies import Checkpointing
from finetune.strategies import GradualUnfreeze
from finetune.training import loop
from tests.distributed.two_ranks import on_ranks
from tests.integration.test_bad_updates import Poisoned, step_of
from tests.runs import digest, history, run, text_task, weights

RARE = {
    "checkpoint": Checkpointing(every="10 steps", keep_best=0),
    "evaluate_every": "10 steps",
    "log_every": "10 steps",
}


@pytest.fixture
def late(monkeypatch):
    monkeypatch.setattr(loop, "num_unread", lambda optimizer, placement: 1)


@dataclass(frozen=True)
class Held:
    """A task whose model can be looked at after a run that failed."""

    task: Any
    models: list

    def __getattr__(self, name):
        return getattr(self.task, name)

    def load_model(self):
        loaded = self.task.load_model()
        self.models.append(loaded.module)
        return loaded


def left_by(task, error, **settings) -> tuple[str, str]:
    """The weights that a run which fails leaves in memory, and what it said."""
    held = Held(task, [])
    with pytest.raises(error) as raised:
        run(held, **RARE, **settings)
    return digest(weights(held.models[-1])), str(raised.value)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-2), SGD(lr=1e-2)])
def test_a_bad_update_and_the_one_after_it_are_not_applied(tmp_path, late, what, optimizer):
    task = text_task(tmp_path)
    step = step_of(task, 3)
    settings = {"optimizer": optimizer}
    before, _ = left_by(task, PreemptedError, stop_at=step, **settings)
    found, said = left_by(Poisoned(task, step, what), DivergedError, **settings)
    assert found == before
    assert f"update {step}: " in said and "training examples are" in said
    assert ("not finite on [3]" in said) == (what == "loss")


def test_a_bad_update_at_the_end_of_a_phase_keeps_the_next_phase_from_beginning(tmp_path, late):
    from finetune.data.sampling import Sampler

    task = text_task(tmp_path)
    settings = {"strategy": GradualUnfreeze(over="60%")}  # phases begin at 2, 4 and 6
    drawn = Sampler(26, batch_size=8, seed=42).draws(3)[0].index
    before, _ = left_by(task, PreemptedError, stop_at=3, **settings)
    found, said = left_by(Poisoned(task, 3, "loss", index=drawn), DivergedError, **settings)
    assert found == before and "update 3: loss nan" in said and f"not finite on [{drawn}]" in said


def test_it_is_noticed_at_the_latest_before_anything_is_saved(tmp_path, late):
    task = text_task(tmp_path)
    step = step_of(task, 3)
    with pytest.raises(DivergedError, match=f"update {step}: .*go on from step {step}"):
        run(
            Poisoned(task, step, "loss"),
            output_dir=str(tmp_path / "run"),
            checkpoint=Checkpointing(every="1 steps", keep_best=0),
        )
    lines = history(tmp_path / "run")
    assert lines[-1]["exit_code"] == 70


def test_weights_and_log_are_those_of_a_run_that_reads_at_once(tmp_path, monkeypatch):
    """Phase changes, evaluations and log lines between; to the rounding of one factor, computed on the device."""
    task = text_task(tmp_path)
    settings = {"strategy": GradualUnfreeze(over="60%"), "evaluate_every": "3 steps", "log_every": "4 steps"}
    settings |= {"checkpoint": Checkpointing(keep_best=0), "max_grad_norm": 0.05}
    found = {}
    for unread in (0, 1):
        monkeypatch.setattr(loop, "num_unread", lambda optimizer, placement, n=unread: n)
        result = run(task, output_dir=str(tmp_path / f"run-{unread}"), **settings)
        lines = [line for line in history(tmp_path / f"run-{unread}") if "loss" in line]
        found[unread] = weights(result.model), lines
    for name, tensor in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], tensor, rtol=1e-4, atol=1e-6)
    at_once, afterwards = found[0][1], found[1][1]
    assert [line["step"] for line in afterwards] == [4, 8, 10]
    for one, other in zip(afterwards, at_once, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5) and one["lr"] == other["lr"]
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


class Signalled:
    """A task during whose step a signal comes."""

    def __init__(self, task: Any, step: int | None = None) -> None:
        self.task, self.step = task, step

    def __getattr__(self, name):
        return getattr(self.task, name)

    def forward(self, model, batch, progress):
        if progress.step == self.step and model.training:
            os.kill(os.getpid(), signal.SIGUSR1)
        return self.task.forward(model, batch, progress)


def test_a_signal_stops_the_run_within_two_updates_and_a_resume_is_exact(tmp_path, late):
    task = text_task(tmp_path)
    whole = digest(weights(run(Signalled(task), output_dir=str(tmp_path / "whole"), **RARE).model))
    with pytest.raises(PreemptedError, match="ended after step [67]"):
        run(Signalled(task, 4), output_dir=str(tmp_path / "cut"), **RARE)
    resumed = run(Signalled(task), output_dir=str(tmp_path / "cut"), existing="resume", **RARE)
    assert digest(weights(resumed.model)) == whole
    assert history(tmp_path / "cut") == history(tmp_path / "whole")


@pytest.mark.parametrize("sharded", [False, True])
def test_ranks_agree(tmp_path, late, sharded):
    """On the weights, and on an update that is bad on one of them."""
    task = text_task(tmp_path)
    poisoned = Poisoned(task, step_of(task, 3), "loss")

    def work():
        trained = digest(weights(run(task, **RARE).model))
        with pytest.raises(DivergedError) as error:
            run(poisoned, **RARE)
        return trained, str(error.value)

    first, second = on_ranks(work, sharded=sharded)
    assert first == second
    assert "not finite on [3]" in first[1]
