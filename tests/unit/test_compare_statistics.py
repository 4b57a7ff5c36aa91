"""What a few pairs of runs say, against numbers by hand and scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from finetune.comparing.facts import constant_score
from finetune.comparing.statistics import (
    deviation,
    front,
    holm,
    interval,
    mean,
    pairs_needed,
    sign_flip_p,
    smallest_p,
)

DIFFERENCES = [0.02, 0.01, -0.004, 0.03, 0.015, 0.0, 0.021]


def test_p_by_hand():
    # of the 8 ways to sign 1, 2, 4 only all plus and all minus reach 7; of 1, 1, -1 six reach 1 and two 3
    assert sign_flip_p([1, 2, 4], key="") == 2 / 8
    assert sign_flip_p([1, 1, -1], key="") == 1
    assert sign_flip_p([0.0, 0.0], key="") == 1
    assert sign_flip_p([0.1] * 6, key="") == 2 / 64  # whose sums differ in their last bits
    assert math.isnan(sign_flip_p([], key=""))


def test_sums_that_differ_by_rounding_are_one():
    draws = np.random.default_rng(0).integers(-5, 6, size=(50, 6))
    for row in draws:
        assert sign_flip_p(list(row * 0.1), key="") == sign_flip_p(list(row), key="")


def test_p_is_scipys():
    found = scipy.stats.permutation_test(
        (np.array(DIFFERENCES), np.zeros(len(DIFFERENCES))),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_p(DIFFERENCES, key="") == pytest.approx(found.pvalue, abs=1e-12)
    assert sign_flip_p([-value for value in DIFFERENCES], key="") == sign_flip_p(DIFFERENCES, key="")


def test_drawn_signs_agree_with_all_of_them():
    values = list(np.random.default_rng(0).normal(0.4, 1, size=17))
    exact = 1 - 2 * ((np.arange(2**17)[:, None] >> np.arange(17)) & 1)
    p = (np.abs(exact @ values) >= abs(sum(values)) - 1e-12).mean()
    assert sign_flip_p(values, key="a") == pytest.approx(p, abs=0.01)
    assert sign_flip_p(values, key="a") == sign_flip_p(values, key="a") > 0
    assert sign_flip_p([1.0] * 40, key="a") == 1 / 100_001


def test_holm_by_hand():
    # 3 x .01, 2 x .03, and .04 which must not fall below that
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    found = holm([0.01, math.nan, 0.04])
    assert found[0] == pytest.approx(0.02) and math.isnan(found[1]) and found[2] == pytest.approx(0.04)


def test_interval():
    low, high = interval(DIFFERENCES, key="a")
    found = scipy.stats.bootstrap((DIFFERENCES,), np.mean, method="percentile", n_resamples=50_000, random_state=0)
    assert (low, high) == pytest.approx(tuple(found.confidence_interval), abs=5e-4)
    assert interval(DIFFERENCES, key="a") == (low, high) != interval(DIFFERENCES, key="b")
    assert interval([0.5, 0.5, 0.5], key="a") == (0.5, 0.5)
    assert all(map(math.isnan, interval([0.5], key="a")))


def test_mean_and_deviation():
    assert mean([1.0, 2.0, 6.0]) == 3 and deviation([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(7))
    assert math.isnan(mean([])) and math.isnan(deviation([1.0]))


def test_how_many_seeds_it_takes():
    assert smallest_p(5, comparisons=1) == 0.0625 and smallest_p(6, comparisons=1) == 0.03125
    assert smallest_p(0, comparisons=1) == smallest_p(2, comparisons=4) == 1
    assert [pairs_needed(count) for count in (1, 2, 3, 10)] == [6, 7, 7, 9]
    for pairs in (5, 6):
        assert sign_flip_p([1.0] * pairs, key="") == smallest_p(pairs, comparisons=1)


def test_front():
    # (gain, cost): the third loses to the first, the fourth is as good for more, the last has no score
    assert front([(0.9, 10), (0.8, 1), (0.85, 12), (0.8, 2), (math.nan, 0.5)]) == [0, 1]
    assert front([(0.9, 1), (0.9, 1)]) == [0, 1]


@pytest.mark.parametrize(
    ("labels", "metric", "score"),
    [
        ([0, 0, 1], "accuracy", 2 / 3),
        ([0, 0, 1], "f1", 0.4),  # 0.8 for class 0, 0 for class 1
        ([0, 0, 1], "loss", -(2 * math.log(2 / 3) + math.log(1 / 3)) / 3),
        ([2, 2, 0], "accuracy", 2 / 3),  # of a class that never occurs nothing is guessed
        ([0, 0, 1], "matthews", 0.0),
        ([1.0, 2.0, 6.0], "mse", 14 / 3),
        ([1.0, 2.0, 6.0], "pearson", None),
        ([1.0, 2.0, 6.0], "loss", None),
        ([0, 0, 1], "mse", None),
        ([0, 0, 1], "one of my own", None),
        ([[True, False], [True, True], [True, False]], "subset_accuracy", 2 / 3),
    ],
)
def test_what_one_guess_for_all_scores(labels, metric, score):
    found = np.array(labels)
    found = found.astype(np.float32) if found.dtype.kind == "f" else found
    assert constant_score(found, metric) == (None if score is None else pytest.approx(score, abs=1e-6))
