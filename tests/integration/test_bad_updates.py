"""Invariants 8 and 14: an update that is not finite changes nothing, on any rank, and is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from finetune.errors import DivergedError, LaunchError
from finetune.optimizers import AdamW
from finetune.policies import Checkpointing
from finetune.precision import Precision
from finetune.schedules import Constant
from tests.distributed.two_ranks import on_ranks
from tests.runs import Exact, digest, history, image_task, run, text_task, weights

LAST = Checkpointing(keep_best=0)


@dataclass(frozen=True)
class Poisoned:
    """A task whose loss, or whose gradient alone, is not finite for one example at one step."""

    task: Any
    step: int
    what: str  # "loss" or "gradient"
    index: int = 3

    def __getattr__(self, name):
        return getattr(self.task, name)

    def forward(self, model, batch, progress):
        output = self.task.forward(model, batch, progress)
        if progress.step != self.step or output.losses is None or not model.training:
            return output
        losses = output.losses
        here = (batch["index"] == self.index).to(losses.dtype)
        if self.what == "loss":
            losses = torch.where(here > 0, torch.full_like(losses, float("nan")), losses)
        else:  # the root's gradient at 0 is infinite, its value is not
            losses = losses + torch.sqrt(output.logits[:, 0] - output.logits[:, 0].detach()) * here
        return output._replace(losses=losses)


def step_of(task, index):
    """The update that draws this example, with the seed of ``run``."""
    from finetune.data.sampling import Sampler

    sampler = Sampler(len(task.load_split("train")), batch_size=8, seed=42)
    return next(step for step in range(1, 10) if index in [draw.index for draw in sampler.draws(step)])


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_bad_update_is_never_applied(tmp_path, what):
    task = text_task(tmp_path)
    step = step_of(task, 3)
    settings = {"checkpoint": Checkpointing(every="1 steps", keep_best=0), "evaluate_every": "1 epoch"}
    with pytest.raises(DivergedError, match=f"update {step}: .*examples are") as error:
        run(Poisoned(task, step, what), output_dir=str(tmp_path / "run"), **settings)
    if what == "loss":
        assert "not finite on [3]" in str(error.value)
    from finetune.checkpoints.reading import newest_good

    good = newest_good(tmp_path / "run" / "checkpoints")
    assert good.step == step
    assert all(bool(tensor.isfinite().all()) for tensor in good.tensors["model"].values())
    assert f"go on from step {step}" in str(error.value)
    assert history(tmp_path / "run")[-1]["exit_code"] == 70


def test_every_rank_stops_when_one_has_a_bad_example(tmp_path):
    task = text_task(tmp_path)
    poisoned = Poisoned(task, step_of(task, 3), "loss")

    def work():
        try:
            run(poisoned)
        except DivergedError as error:
            return str(error)

    first, second = on_ranks(work)
    assert first == second
    assert "not finite on [3]" in first


def test_fp16_skips_an_overflow_and_changes_nothing_else(tmp_path):
    """A skipped update moves no weight, no moment and no Adam step; clock, order and schedule go on."""
    from finetune.checkpoints.reading import newest_good

    task = text_task(tmp_path)
    precision = Precision(name="fp16", emulate="yes", initial_scale=2.0**22, interval=3)
    settings = {"precision": precision, "output_dir": str(tmp_path / "run"), "log_every": "1 steps"}
    run(task, **settings, checkpoint=Checkpointing(every="1 steps", keep_last=100, keep_best=0))
    lines = [line for line in history(tmp_path / "run") if "loss_scale" in line]
    skipped = [line["skipped_updates"] for line in lines]
    assert 0 < skipped[-1] < len(lines)
    assert [line["step"] for line in lines] == [*range(1, 11)]
    root = tmp_path / "run" / "checkpoints"
    from finetune.checkpoints.reading import read_checkpoint

    found = [read_checkpoint(root / f"step-{step:06d}") for step in range(1, 11)]
    bits = [digest(checkpoint.tensors["model"]) for checkpoint in found]
    made = newest_good(root).tensors["optimizer"]
    steps = {int(value) for name, value in made.items() if name.endswith("/step")}
    assert steps == {10 - skipped[-1]}
    for number in range(1, 10):
        was_skipped = skipped[number] > skipped[number - 1]
        assert (bits[number] == bits[number - 1]) == was_skipped
        scale, before = lines[number]["loss_scale"], lines[number - 1]["loss_scale"]
        assert scale == before / 2 if was_skipped else scale in (before, before * 2)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_learns_what_fp32_learns(tmp_path, name):
    task = image_task(tmp_path)
    settings = {"optimizer": AdamW(lr=3e-3), "schedule": Constant(), "length": "24 steps", "checkpoint": LAST}
    half = run(task, precision=Precision(name=name, emulate="yes"), **settings)
    full = run(task, **settings)
    assert half.metrics["validation"]["loss"] == pytest.approx(full.metrics["validation"]["loss"], abs=0.1)
    assert all(tensor.dtype == torch.float32 for tensor in weights(half.model).values() if tensor.is_floating_point())


def test_what_the_cpu_converts_is_refused_without_emulation(tmp_path):
    with pytest.raises(LaunchError, match="precision fp16: .*emulate: yes"):
        run(text_task(tmp_path), precision=Precision(name="fp16"))


def test_clipping_under_fp16_is_that_of_fp32(tmp_path):
    """Unscaled before it is clipped: the logged norm does not depend on the scale."""
    task = Exact(text_task(tmp_path))
    precisions = {
        "low": Precision(name="fp16", emulate="yes", initial_scale=2.0),
        "high": Precision(name="fp16", emulate="yes", initial_scale=2.0**10),
    }
    norms = {}
    for name, precision in precisions.items():
        run(task, precision=precision, length="1 steps", output_dir=str(tmp_path / name), log_every="1 steps")
        norms[name] = history(tmp_path / name)[0]["grad_norm"]["total"]
    assert norms["low"] == pytest.approx(norms["high"], rel=5e-3)
