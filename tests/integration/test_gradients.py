"""Invariant 1: the gradient of an update does not depend on how it is cut, the short tail included."""

from __future__ import annotations

import pytest
import torch

from finetune.optimizers import SGD
from finetune.tasks.text import TextRegression
from tests import tiny_data, tiny_models
from tests.distributed.two_ranks import on_ranks
from tests.runs import Exact, assert_close, image_task, run, text_task, weights


def regression_task(folder):
    tiny_models.save_text_folder(folder / "bert")
    for split, seed in (("train", 0), ("validation", 1)):
        tiny_data.write_targets(folder / f"{split}.csv", 26, seed=seed)
    data = {split: str(folder / f"{split}.csv") for split in ("train", "validation")}
    return TextRegression(model=str(folder / "bert"), data={**data, "text": "text", "label": "score"}, max_length=32)


TASKS = {"text": text_task, "regression": regression_task, "images": image_task}


def trained(task, micro_batch="8 examples"):
    """Plain SGD, so that a gradient K times too large gives weights that are wrong by as much."""
    result = run(task, optimizer=SGD(lr=0.1, momentum=0.0), max_grad_norm=0, length="5 steps", micro_batch=micro_batch)
    return weights(result.model)


@pytest.mark.parametrize("kind", TASKS)
def test_gradient_is_the_mean_over_the_whole_update(tmp_path, kind):
    task = Exact(TASKS[kind](tmp_path))
    whole = trained(task)
    assert_close(trained(task, "2 examples"), whole)
    assert_close(trained(task, "3 examples"), whole)  # 8 = 3 + 3 + 2
    for rank in on_ranks(lambda: trained(task, "2 examples")):
        assert_close(rank, whole)


def test_gradient_is_the_same_by_tokens(tmp_path):
    task = Exact(text_task(tmp_path))
    assert_close(trained(task, "40 tokens"), trained(task))


def test_gradient_equals_one_plain_backward(tmp_path):
    """Against torch itself: one SGD step of lr 1 moves each weight by its gradient of the mean loss."""
    task = Exact(text_task(tmp_path, examples=8))
    model = task.load_model().module.train()
    store = task.load_split("train")
    from finetune.data.store import Draw
    from finetune.encoders import padded
    from finetune.randomness import keyed

    with keyed(42, "init"):
        model = task.load_model().module
    batch = padded(store.batch([Draw(0, 0, index) for index in range(8)]), pad_id=0)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
    expected = {name: p.detach() - p.grad for name, p in model.named_parameters() if p.grad is not None}
    from finetune.schedules import Constant

    result = run(
        task,
        optimizer=SGD(lr=1.0, momentum=0.0),
        schedule=Constant(),
        max_grad_norm=0,
        length="1 steps",
        micro_batch="3 examples",
    )
    found = weights(result.model)
    assert_close({name: found[name] for name in expected}, expected)


def test_clipping_bounds_the_norm_of_the_whole_update(tmp_path):
    """One step of SGD with lr 1 moves all weights together by at most max_grad_norm."""
    from finetune.policies import Checkpointing
    from finetune.schedules import Constant

    task = Exact(text_task(tmp_path))

    def moved(max_grad_norm):
        settings = {"optimizer": SGD(lr=1.0, momentum=0.0), "schedule": Constant(), "micro_batch": "3 examples"}
        settings |= {"checkpoint": Checkpointing(keep_best=0), "max_grad_norm": max_grad_norm}
        before = weights(run(task, length="1 steps", **settings | {"optimizer": SGD(lr=1e-30)}).model)
        after = weights(run(task, length="1 steps", **settings).model)
        return torch.stack([(after[name] - before[name]).double().norm() for name in before]).norm()

    assert moved(0) > 0.02
    assert moved(0.01) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_rank_without_examples_adds_nothing(tmp_path, sharded):
    """25 examples make a last update of one: the second rank runs a filler of weight 0."""
    task = Exact(text_task(tmp_path, examples=25))
    whole = trained(task)
    for rank in on_ranks(lambda: trained(task, "2 examples"), sharded=sharded):
        assert_close(rank, whole)
