from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.durations import Duration, check_interval, due_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3 epochs", 39),
        ("1 epoch", 13),
        ("0.5 epochs", 7),  # 6.5, halves up
        ("500 steps", 500),
        ("1 step", 1),
        ("10%", 20),
        ("100 %", 200),
        (" 2.5EPOCHS ", 33),  # 32.5
        (".5 epochs", 7),
        ("0 steps", 0),
    ],
)
def test_a_duration_in_steps(text, steps):
    assert Duration.parse(text).steps(steps_per_epoch=13, total_steps=200) == steps


@pytest.mark.parametrize("text", ["3", 3, None, "three epochs", "3 days", "-1 steps", "10 % of it", "", "1e3 steps"])
def test_anything_else_is_told_how_to_write_it(text):
    with pytest.raises(ValueError, match="is not a duration; write e.g. '3 epochs', '500 steps' or '10%'"):
        Duration.parse(text)


def test_a_share_is_at_most_the_whole():
    with pytest.raises(ValueError, match="'101%' is more than the whole"):
        Duration.parse("101%")
    assert Duration.parse("150 epochs").amount == 150


@pytest.mark.parametrize(
    ("written", "text"),
    [("1 epochs", "1 epoch"), ("3epoch", "3 epochs"), ("7.5 %", "7.5%"), ("1 steps", "1 step"), ("0 step", "0 steps")],
)
def test_text_is_the_canonical_form(written, text):
    assert str(Duration.parse(written)) == text


@settings(deadline=None)
@given(st.integers(0, 10**10), st.sampled_from(["epochs", "steps"]))
def test_text_says_the_exact_number(amount, unit):
    """What a configuration stores is this text: %g would have made 1.23457e+06 of 1234567."""
    assert Duration.parse(str(Duration(amount, unit))) == Duration(amount, unit)


@settings(deadline=None)
@given(st.floats(0, 100, allow_nan=False), st.sampled_from(["epochs", "steps", "%"]))
def test_text_reads_back(amount, unit):
    again = Duration.parse(str(Duration(amount, unit)))
    assert again.unit == unit and again.amount == pytest.approx(amount, abs=1e-9)


def test_thirds_of_a_share_end_at_the_whole_share():
    third = Duration.parse("50%") * (1 / 3)
    assert [(third * count).steps(steps_per_epoch=1, total_steps=1000) for count in (1, 2, 3)] == [167, 333, 500]


def test_due_steps_do_not_drift():
    assert due_steps("0.3 epochs", steps_per_epoch=5, total_steps=15) == [2, 3, 5, 6, 8, 9, 11, 12, 14, 15]
    assert due_steps("1 epoch", steps_per_epoch=4, total_steps=10) == [4, 8]
    assert due_steps("25%", steps_per_epoch=4, total_steps=10) == [3, 5, 8, 10]
    assert due_steps("20 steps", steps_per_epoch=4, total_steps=10) == []


@settings(deadline=None)
@given(st.floats(0.01, 50), st.sampled_from(["epochs", "steps", "%"]), st.integers(1, 40), st.integers(1, 200))
def test_due_steps_never_repeat(amount, unit, steps_per_epoch, total_steps):
    steps = due_steps(Duration(amount, unit), steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    assert steps == sorted(set(steps)) and all(1 <= step <= total_steps for step in steps)


@pytest.mark.parametrize("text", ["0 steps", "0 epochs", "0%"])
def test_no_time_at_all_is_no_interval(text):
    with pytest.raises(ValueError, match="evaluate_every: .* is no interval"):
        check_interval(text, field="evaluate_every")
    check_interval("0.1 epochs", field="evaluate_every")
