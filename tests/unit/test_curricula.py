from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.curricula import Curriculum
from finetune.progress import Progress

PACINGS = ["linear", "root", "step"]


def at(step: int, *, total: int = 100) -> Progress:
    return Progress(step, total, 20)


@pytest.mark.parametrize(
    ("pacing", "expected"),
    [
        ("linear", lambda x: 0.2 + 0.8 * x),
        ("root", lambda x: math.sqrt(0.04 + 0.96 * x)),
        ("step", lambda x: 0.2 + 0.8 * math.floor(x * 5) / 5),
    ],
)
def test_the_share_is_its_closed_form(pacing, expected):
    curriculum = Curriculum(pacing=pacing, start=0.2, until="50%")
    for step in range(101):
        assert curriculum.share(at(step)) == pytest.approx(expected(min(1.0, step / 50)), abs=1e-12)


def test_stairs_are_as_many_as_asked_for():
    curriculum = Curriculum(pacing="step", start=0.2, until="60 steps", stages=3)
    shares = [curriculum.share(at(step)) for step in range(100)]
    assert sorted(set(shares)) == pytest.approx([0.2, 0.2 + 0.8 / 3, 0.2 + 1.6 / 3, 1.0])
    assert [shares.index(share) for share in sorted(set(shares))] == [0, 20, 40, 60]


def test_stages_of_no_stairs_are_refused():
    with pytest.raises(ValueError, match="stages: 3 has no effect with pacing 'root'; set pacing: step"):
        Curriculum(stages=3)


@settings(deadline=None)
@given(
    st.sampled_from(PACINGS),
    st.floats(0.01, 1),
    st.sampled_from(["50%", "37 steps", "1 epoch", "100%", "0%"]),
    st.integers(1, 300),
    st.integers(1, 40),
)
def test_what_is_visible_grows_to_everything_at_the_stated_time(pacing, start, until, num_examples, batch_size):
    curriculum = Curriculum(pacing=pacing, start=start, until=until)
    steps = at(0).steps(until)
    shown = [curriculum.num_visible(at(step), num_examples=num_examples, batch_size=batch_size) for step in range(101)]
    assert shown == sorted(shown) and min(shown) >= min(batch_size, num_examples)
    assert all(count == num_examples for count in shown[steps:])
    if steps and start < 0.9:
        assert shown[0] == min(num_examples, max(batch_size, math.ceil(start * num_examples - 1e-9)))


@pytest.mark.parametrize("pacing", PACINGS)
def test_all_is_all_of_a_large_set(pacing):
    """The share is 1 but for rounding; ten million times an error of 1e-16 must not hide an example."""
    for start in np.linspace(0.01, 1, 50):
        curriculum = Curriculum(pacing=pacing, start=float(start), until="50%")
        assert curriculum.num_visible(at(50), num_examples=10_000_000, batch_size=8) == 10_000_000


def test_not_all_is_visible_just_before():
    for pacing in PACINGS:
        curriculum = Curriculum(pacing=pacing, start=0.3, until="50%")
        assert curriculum.num_visible(at(49), num_examples=10_000, batch_size=8) < 10_000


def test_ranking_by_difficulty():
    values = np.array([3.0, 1.0, 2.0, 0.0])
    assert Curriculum(order="easy_first").ranking(values, seed=1).tolist() == [3, 1, 2, 0]
    assert Curriculum(order="hard_first").ranking(values, seed=1).tolist() == [0, 2, 1, 3]


def test_ties_are_broken_by_chance_and_not_by_place():
    """Data sorted by class would else show one class first; equal for equal seeds, on every rank."""
    values = np.repeat([2.0, 1.0], 50)
    ranking = Curriculum().ranking(values, seed=1)
    assert sorted(ranking[:50]) == list(range(50, 100))
    assert ranking[:50].tolist() != list(range(50, 100))
    assert (Curriculum().ranking(values, seed=1) == ranking).all()
    assert (Curriculum().ranking(values, seed=2) != ranking).any()


@pytest.mark.parametrize(("order", "expected"), [("easy_first", [3, 0]), ("hard_first", [0, 3])])
def test_what_is_not_a_number_comes_last_with_a_warning(order, expected):
    values = np.array([2.0, math.nan, math.nan, 1.0])
    with pytest.warns(UserWarning, match="2 of 4 examples have no words; they are shown last"):
        ranking = Curriculum(difficulty="words", order=order).ranking(values, seed=1)
    assert ranking[:2].tolist() == expected and sorted(ranking[2:]) == [1, 2]


def test_infinite_difficulty_is_a_number():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranking = Curriculum().ranking(np.array([math.inf, 0.0, -math.inf]), seed=1)
    assert ranking.tolist() == [2, 1, 0]


def test_the_control_ranks_by_chance():
    values = np.arange(50.0)
    random = Curriculum(order="random")
    first = random.ranking(values, seed=1)
    assert sorted(first) == list(range(50)) and first.tolist() != values.tolist()
    assert (random.ranking(values[::-1].copy(), seed=1) == first).all()
    assert (random.ranking(values, seed=2) != first).any()


@pytest.mark.parametrize("start", [0.0, -0.5, 1.1, math.nan])
def test_start_is_a_share(start):
    with pytest.raises(ValueError, match="start is the share visible at step 0"):
        Curriculum(start=start)


def test_until_is_a_duration():
    with pytest.raises(ValueError, match="'half' is not a duration"):
        Curriculum(until="half")
