"""Invariant 9: evaluation uses every example once, for any number of ranks, and decides as its metric says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from finetune.optimizers import AdamW
from finetune.policies import EarlyStopping
from finetune.schedules import Constant
from tests.distributed.two_ranks import on_ranks
from tests.runs import Exact, run, text_task


@dataclass(frozen=True)
class Counted:
    """A task whose score is what the evaluation saw."""

    task: Any
    metrics = ("loss",)

    def __getattr__(self, name):
        return getattr(self.task, name)

    def score(self, predictions):
        return {
            "examples": float(len(predictions.logits)),
            "labels": float((predictions.labels * np.arange(len(predictions.labels))).sum()),
            "spread": float(np.abs(predictions.logits).sum()),
        }


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("sharded", [False, True])
def test_metrics_of_21_examples_do_not_depend_on_the_ranks(tmp_path, count, sharded):
    if sharded and count == 3:
        pytest.skip("one sharded size is enough")
    task = Counted(Exact(text_task(tmp_path)))
    settings = {"length": "1 steps", "micro_batch": "2 examples", "metric": "loss"}
    expected = run(task, **settings).metrics["validation"]
    assert expected["examples"] == 21
    for metrics in on_ranks(lambda: run(task, **settings).metrics["validation"], count=count, sharded=sharded):
        assert metrics == pytest.approx(expected, rel=1e-6)


def test_early_stopping_is_one_decision(tmp_path):
    settings = {"optimizer": AdamW(lr=1e-9), "schedule": Constant(), "evaluate_every": "2 steps"}
    task = Exact(text_task(tmp_path))

    def steps():
        return run(task, early_stopping=EarlyStopping(patience=2), **settings).state.step

    assert steps() == 6  # the first evaluation is the best, the next two are no better
    assert on_ranks(steps) == [6, 6]


def test_a_lower_loss_is_better(tmp_path):
    result = run(text_task(tmp_path), metric="loss", evaluate_every="2 steps", optimizer=AdamW(lr=3e-2))
    losses = {step: metrics["loss"] for step, metrics in result.state.metrics.items()}
    assert result.best["step"] == min(losses, key=losses.__getitem__)
    assert result.metrics["validation"]["loss"] == min(losses.values())


@pytest.mark.parametrize("micro_batch", ["1 example", "3 examples", "1 token", "40 tokens", "256 examples"])
def test_predictions_do_not_depend_on_how_they_are_cut(tmp_path, micro_batch):
    """Each example once, in the order of the split, with its own loss; ragged last batches included."""
    import torch

    from finetune.data.loading import weighted_batch
    from finetune.data.sampling import MicroBatch
    from finetune.data.store import Draws
    from finetune.encoders import Forward
    from finetune.evaluation import predict
    from finetune.precision import Precision
    from finetune.progress import Progress
    from finetune.training.placement import placed

    task = Exact(text_task(tmp_path))
    forward, store = Forward(task.load_model().module), task.load_split("validation")
    clock = Progress(0, 1, 1)
    with torch.no_grad():
        expected = task.forward(forward.eval(), weighted_batch(store, Draws(np.arange(len(store)))), clock)
    for tokens in ("padded", "useful"):
        with placed(Precision(name="fp32")) as placement:
            found, losses = predict(
                forward.train(),
                store,
                task=task,
                progress=clock,
                placement=placement,
                micro_batch=MicroBatch(micro_batch),
                tokens=tokens,
            )
        assert found.logits == pytest.approx(expected.logits.numpy(), rel=1e-5, abs=1e-6)
        assert losses[:, 0] == pytest.approx(expected.losses.numpy(), rel=1e-5) and (losses[:, 1] == 1).all()
        assert (found.labels == store.labels).all() and found.logits.dtype == np.float32


def test_losses_of_items_that_are_not_examples_are_all_kept(tmp_path):
    """Two items per example, one of them of weight 0; and a split without labels."""

    @dataclass(frozen=True)
    class Doubled:
        task: Any
        metrics = ("loss",)

        def __getattr__(self, name):
            return getattr(self.task, name)

        def forward(self, model, batch, progress):
            import torch

            output = self.task.forward(model, batch, progress)
            losses = torch.cat([output.losses, torch.full_like(output.losses, 9.0)])
            return output._replace(losses=losses, weights=torch.cat([output.weights, output.weights * 0]))

        def score(self, predictions):
            return {"examples": float(len(predictions.logits))}

    settings = {"length": "1 steps", "micro_batch": "2 examples", "metric": "loss"}
    task = Exact(text_task(tmp_path))
    expected = run(Counted(task), **settings).metrics["validation"]["loss"]
    assert run(Doubled(task), **settings).metrics["validation"] == {"loss": pytest.approx(expected), "examples": 21.0}
