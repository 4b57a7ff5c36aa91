"""Rules of retention against counting by hand, alone and together, and over a whole run of saves and deletions."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.checkpoints.keeping import first_after, retained, spaced
from finetune.checkpoints.retention import rotate, saved_steps
from finetune.checkpoints.writing import write_checkpoint
from finetune.durations import due_steps

SCORES = st.none() | st.sampled_from([0.1, 0.3, 0.5, 0.7, math.nan, -math.inf])
HISTORIES = st.dictionaries(st.integers(1, 200), SCORES, min_size=1, max_size=40)
RULES = st.fixed_dictionaries(
    {
        "keep_last": st.integers(1, 4),
        "keep_best": st.integers(0, 4),
        "marks": st.integers(1, 60).map(lambda every: due_steps(f"{every} steps", steps_per_epoch=7, total_steps=200)),
        "saves": st.none() | st.sampled_from(["1 steps", "3 steps", "0.3 epochs", "1 epoch", "4%"]),
    }
).map(lambda rules: {**rules, "saves": saves_of(rules["saves"])})


def saves_of(every: str | None) -> list[int]:
    return due_steps(every, steps_per_epoch=7, total_steps=200) if every else []


def by_hand(saved: dict, *, keep_last, keep_best, marks, saves) -> set[int]:
    """Each rule as its sentence reads, in the slowest way."""
    newest = {step for step in saved if sum(other > step for other in saved) < keep_last}
    ranked = {step: score for step, score in saved.items() if score is not None and score == score}
    beaten = {at: sum(s > score or (s == score and o < at) for o, s in ranked.items()) for at, score in ranked.items()}
    kept = newest | {step for step, count in beaten.items() if count < keep_best}
    for mark, end in zip(marks, [*marks[1:], math.inf], strict=True):
        kept |= set(sorted(step for step in saved if mark <= step < end)[:1])
    passed = [step for step in saves if step <= max(saved)]
    for power in range(-1, len(passed).bit_length()):
        ages = [0] if power < 0 else range(2**power, 2 ** (power + 1))
        numbers = [len(passed) - age for age in ages if len(passed) - age > 0]
        [chosen] = [number for number in numbers if number % 2 ** max(power, 0) == 0] or [None]
        if chosen is not None and passed[chosen - 1] in saved:
            kept.add(passed[chosen - 1])
    return kept


@settings(max_examples=300, deadline=None)
@given(HISTORIES, RULES)
def test_what_stays_is_what_the_rules_say(saved, rules):
    assert retained([*saved.items()], **rules) == by_hand(saved, **rules)


@settings(max_examples=150, deadline=None)
@given(HISTORIES, RULES)
def test_what_stays_stays(saved, rules):
    kept = retained([*saved.items()], **rules)
    assert retained([(step, saved[step]) for step in kept], **rules) == kept


@settings(max_examples=150, deadline=None)
@given(HISTORIES, RULES)
def test_deleting_after_every_save_is_deleting_once(saved, rules):
    left: dict = {}
    for step in sorted(saved):
        left[step] = saved[step]
        left = {at: left[at] for at in retained([*left.items()], **rules)}
    assert left.keys() == retained([*saved.items()], **rules)


@settings(max_examples=100, deadline=None)
@given(HISTORIES, RULES, st.sampled_from(["keep_last", "keep_best", "marks", "saves"]))
def test_a_rule_more_keeps_what_it_keeps_alone(saved, rules, left_out):
    without = {**rules, left_out: type(rules[left_out])()}
    assert retained([*saved.items()], **without) <= retained([*saved.items()], **rules)


def test_ages_double():
    kept = spaced(range(1, 101), range(1, 101))
    assert sorted(100 - step for step in kept) == [0, 1, 2, 4, 12, 20, 36]
    for newest in range(1, 400):
        ages = [newest - step for step in spaced(range(1, newest + 1), range(1, newest + 1))]
        assert sorted(age.bit_length() for age in ages) == [*range(len(ages))]  # one each of 0, 1, 2-3, 4-7 …
        assert newest.bit_length() <= len(ages) <= newest.bit_length() + 1


def test_a_save_that_was_not_due_has_no_place_in_the_row():
    assert spaced([10, 13, 20, 30, 33], [10, 20, 30, 40]) == {20, 30}
    assert spaced([], [10]) == spaced([5], []) == set()


def test_marks_take_the_first_from_there_on():
    assert first_after([3, 9, 12, 18, 31, 40], [10, 20, 30, 40]) == {12, 31, 40}
    assert first_after([3, 9], [10]) == first_after([3, 9], []) == set()


def test_forty_saves_on_a_disk(tmp_path):
    """Saved, rotated, and rotated again as a resume does: the same folders stay."""
    root, every = tmp_path / "checkpoints", list(range(2, 81, 2))
    rules = {"keep_last": 1, "keep_best": 1, "marks": [30, 60], "saves": every}
    scores = {12: 0.9, 40: 0.5, 66: 0.2}
    for step in every:
        write_checkpoint(root, step, tensors={"model": {"w": torch.zeros(2)}}, documents={}, run_id="r")
        left = rotate(root, run_id="r", scores=scores, **rules)
        assert rotate(root, run_id="r", scores=scores, **rules) == left == saved_steps(root, run_id="r")
    assert left == [12, 30, 32, 60, 64, 72, 76, 78, 80]
