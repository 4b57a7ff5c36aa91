"""What a run has come to, as JSON: all of it comes back, nothing else does, and it does not grow."""

from __future__ import annotations

import json
import math

import pytest

from finetune.checkpoints.documents import from_json, to_json
from finetune.precision import ScalerState
from finetune.progress import Evaluation
from finetune.training.state import Losses, RunState


def state(evaluations: int = 3, classes: int = 1) -> RunState:
    scores = [(number * 10, 1 / (1 + abs(number - 2))) for number in range(1, evaluations + 1)]
    return RunState(
        step=evaluations * 10,
        evaluations=[Evaluation(*each) for each in scores],
        metrics={step: {f"f1_{number}": score for number in range(classes)} for step, score in scores},
        scaler=ScalerState(8.0, 3, 1),
        losses=Losses(1.5, 2),
        seconds=2.5,
    )


def test_what_is_written_comes_back():
    found = RunState.from_document(from_json(to_json(state().document())))
    assert found.document() == state().document()
    assert (found.step, found.scaler, found.losses) == (30, ScalerState(8.0, 3, 1), Losses(1.5, 2))
    assert found.metrics.keys() == {20, 30}  # the best and the newest


def test_it_does_not_grow_with_the_classes_of_old_evaluations():
    """1,000 classes and 1,000 evaluations were more JSON than a checkpoint may hold."""
    many = to_json(state(1000, 1000).document())
    few = to_json(state(3, 1000).document())
    assert len(many) < len(few) + 1000 * 60
    assert RunState.from_document(from_json(many)).metrics.keys() == {20, 10_000}


def test_an_evaluation_that_was_never_a_number_is_never_the_best():
    made = RunState(step=5, evaluations=[Evaluation(5, math.nan)], metrics={5: {"f1": math.nan}})
    found = RunState.from_document(from_json(to_json(made.document())))
    assert math.isnan(found.evaluations[0].score) and found.metrics.keys() == {5}


def test_losses_are_their_mean():
    assert Losses(3.0, 2).mean() == 1.5 and math.isnan(Losses().mean())


@pytest.mark.parametrize("key", RunState().document())
def test_every_entry_is_missed_and_named(key):
    document = json.loads(to_json(state().document()))
    del document[key]
    with pytest.raises(ValueError, match=f"^{key}: missing"):
        RunState.from_document(document)


@pytest.mark.parametrize("key", RunState().document())
@pytest.mark.parametrize("value", ["abc", None, {"a": 1}, [[1]], -1])
def test_nonsense_is_named(key, value):
    with pytest.raises(ValueError, match=f"^{key}: "):
        RunState.from_document({**state().document(), key: value})
