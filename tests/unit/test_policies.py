from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.policies import Checkpointing, EarlyStopping, best_evaluation, without_improvement
from finetune.progress import Evaluation

SCORES = st.lists(st.one_of(st.sampled_from([0.1, 0.2, 0.3]), st.just(math.nan)), max_size=8)


def evaluations(*scores: float) -> list[Evaluation]:
    return [Evaluation(10 * (number + 1), score) for number, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "count"),
    [
        ((), 0),
        ((0.5,), 0),
        ((0.5, 0.5), 1),  # a tie is no improvement
        ((0.5, 0.4, 0.45), 2),  # better than the last is not better than the best
        ((0.5, 0.4, 0.6), 0),
        ((0.5, math.nan, math.nan), 2),
        ((math.nan, 0.1), 0),
        ((math.nan,), 1),
        ((-3.0, -2.0), 0),  # a loss, negated
        ((-math.inf, -math.inf), 2),
    ],
)
def test_evaluations_without_improvement(scores, count):
    assert without_improvement(evaluations(*scores)) == count


def test_small_steps_count_only_together():
    found = [without_improvement(evaluations(0.50, 0.51, 0.52, 0.54)[:n], min_delta=0.03) for n in range(1, 5)]
    assert found == [0, 1, 2, 0]  # against the best that counted, not the last


def test_early_stopping_is_at_the_patience():
    stopping = EarlyStopping(patience=2)
    course = evaluations(0.5, 0.4, 0.6, 0.6, 0.6, 0.7)
    assert [stopping.should_stop(course[:n]) for n in range(7)] == [False] * 5 + [True, False]


@settings(deadline=None)
@given(SCORES, st.integers(1, 4))
def test_early_stopping_counts_back_to_the_best(scores, patience):
    course = evaluations(*scores)
    best = best_evaluation(course)
    since = [evaluation for evaluation in course if best is None or evaluation.step > best.step]
    assert EarlyStopping(patience=patience).should_stop(course) == (len(since) >= patience)


def test_ties_keep_the_earlier_and_nan_is_never_best():
    assert best_evaluation([]) is None and best_evaluation(evaluations(math.nan)) is None
    assert best_evaluation(evaluations(math.nan, 0.5, 0.7, 0.7, math.nan)) == Evaluation(30, 0.7)


@pytest.mark.parametrize("every", ["0 epochs", "0 steps", "ten steps"])
def test_checkpoints_need_an_interval(every):
    with pytest.raises(ValueError, match="interval|duration"):
        Checkpointing(every=every)
