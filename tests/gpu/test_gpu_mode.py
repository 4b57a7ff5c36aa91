"""Compiled blocks and recorded steps, where they run: the same gradients, the same dropout, and a run that resumes."""

from __future__ import annotations

import pytest
import torch

from finetune.encoders import Forward
from finetune.errors import PreemptedError
from finetune.policies import Checkpointing
from finetune.precision import Precision
from finetune.progress import Progress
from finetune.speed import Speed
from finetune.tasks.base import Output
from finetune.training import gpu_ways
from finetune.training.buckets import filled
from finetune.training.cuda_graphs import Recordings, are_close
from finetune.training.gradients import Gradients
from finetune.training.placement import placed
from finetune.training.update import Trained, accumulate
from tests import tiny_models
from tests.runs import digest, image_task, run, text_task, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("error:speed:UserWarning"),  # what falls back says so
]
LAST = Checkpointing(keep_best=0)
LENGTHS = ([12, 3, 30, 7, 7], [9, 5, 30, 8, 7], [20, 3, 10, 4, 5], [11, 4, 30, 9, 6], [3, 3, 30, 3])


class Squares:
    """The squared logits of each example."""

    def forward(self, model, batch, progress):
        logits = model(batch)
        return Output(logits.square().sum(1), batch["weights"], logits)


def batch_of(lengths: list[int], *, seed: int) -> dict:
    draw = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(5, tiny_models.VOCABULARY, (sum(lengths),), generator=draw),
        "lengths": torch.tensor(lengths),
        "index": torch.arange(len(lengths)),
        "weights": torch.ones(len(lengths)),
    }


@pytest.fixture
def short_phases_too(monkeypatch):
    monkeypatch.setattr(gpu_ways, "_PAYS_RECORDING", 1)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replay_gives_the_gradients_of_the_computation_with_its_dropout(family, precision):
    """Of other batches than the one that was recorded, at other seeds."""
    forward = Forward(tiny_models.tiny(family)).cuda().train()
    trained = Trained(torch.optim.SGD([{"params": [*forward.parameters()], "group": "all"}], lr=0.1))
    recordings = Recordings(trained.parameters, device=torch.device("cuda"))
    ways = Gradients(trained, batch_size=5, recordings=recordings)
    with placed(Precision(name=precision)) as placement:
        settings = {"task": Squares(), "progress": Progress(0, 10, 5), "placement": placement, "factor": 0.5}
        for step in range(10):
            batch = batch_of(LENGTHS[step % len(LENGTHS)], seed=step)
            torch.cuda.manual_seed(step)
            found, _ = ways(forward, [batch], **settings)
            gradients = [gradient.clone() for gradient in trained.gradients()]
            trained.clear()
            torch.cuda.manual_seed(step)
            expected, _ = accumulate(forward, [filled(batch, batch_size=5)], **settings)
            assert are_close(gradients, trained.gradients())
            torch.testing.assert_close(found[0][0].float(), expected[0][0].float(), rtol=1e-3, atol=1e-5)
            trained.clear()
    assert recordings._recordings and not recordings.has_given_up
    ways.close()


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("speed", [Speed(), Speed(compile="on"), Speed(compile="on", cuda_graphs="off")])
def test_a_run_learns_what_it_learns_plainly(tmp_path, short_phases_too, kind, speed):
    """Nothing falls back."""
    task = text_task(tmp_path) if kind == "text" else image_task(tmp_path)
    plain = run(task, length="24 steps", checkpoint=LAST, speed=Speed(compile="off", cuda_graphs="off"))
    fast = run(task, length="24 steps", checkpoint=LAST, speed=speed)
    assert fast.plan["speed"]["compile"].startswith("on") == (speed.compile == "on")
    assert fast.plan["speed"]["cuda_graphs"].startswith("on") == (speed.cuda_graphs == "auto")
    losses = [result.metrics["validation"]["loss"] for result in (plain, fast)]
    assert losses[1] == pytest.approx(losses[0], abs=0.1)


def test_resume_is_exact_with_recorded_steps(tmp_path, short_phases_too):
    task = text_task(tmp_path)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole = run(task, length="24 steps", output_dir=str(tmp_path / "whole"))
        with pytest.raises(PreemptedError):
            run(task, length="24 steps", output_dir=str(tmp_path / "cut"), stop_at=11)
        resumed = run(task, length="24 steps", output_dir=str(tmp_path / "cut"), existing="resume")
    finally:
        torch.use_deterministic_algorithms(False)
    assert digest(weights(resumed.model)) == digest(weights(whole.model))
