"""Data order as one property: whatever the sizes, the cuts and the stops, an epoch is each example exactly once.

There is no dropping of a last batch here, by design: it is short. Cases are drawn by number, so that one that fails
can be had again by itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest

from finetune.curricula import Curriculum
from finetune.curricula.pacing import Pacing
from finetune.data.sampling import MicroBatch, Sampler, cut
from finetune.data.store import Draws, indices_of
from finetune.evaluation import _by_example
from finetune.progress import Progress

EPOCHS = 2
ORDERS = ("random", "bucketed", "balanced")
MICRO = ("1 example", "3 examples", "64 examples", "1 token", "40 tokens", "10000 tokens")


@dataclass(frozen=True)
class Case:
    """A run, and how it is cut: a segment is what goes from one stop to the next."""

    num_examples: int
    batch_size: int
    seed: int
    order: str
    curriculum: Curriculum | None
    segments: tuple[tuple[int, int, str, str], ...]  # first step, ranks, micro-batch, what its tokens count

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_examples // self.batch_size)

    @property
    def lengths(self) -> np.ndarray:
        return np.random.default_rng(self.seed).integers(1, 30, self.num_examples).astype(np.int32)

    def sampler(self) -> Sampler:
        """Made anew, as each process does that begins or goes on."""
        visible = None
        if self.curriculum is not None:
            difficulty = self.lengths.astype(np.float64)
            course = self.curriculum.course(difficulty, seed=self.seed, batch_size=self.batch_size)

            def visible(step: int) -> np.ndarray:
                return course.visible(self.at(step))

        labels = np.random.default_rng(self.seed).integers(0, 3, self.num_examples)
        sizes = {"batch_size": self.batch_size, "seed": self.seed, "order": self.order}
        return Sampler(self.num_examples, lengths=self.lengths, labels=labels, visible=visible, **sizes)

    def at(self, step: int) -> Progress:
        return Progress(step, EPOCHS * self.steps_per_epoch, self.steps_per_epoch)


def drawn(number: int) -> Case:
    """The case of this number: small ones and those where sizes divide are as frequent as others."""
    source = np.random.default_rng(number)
    num_examples = int(source.integers(1, (8, 40, 301)[source.integers(3)]))
    steps = int(source.integers(1, 9))
    batch_size = max(1, num_examples // steps) + int(source.integers(0, 2))
    per_epoch = -(-num_examples // batch_size)
    stops = sorted({0, *source.integers(0, EPOCHS * per_epoch, source.integers(0, 4)).tolist()})
    curriculum = None
    if source.random() < 0.3:
        curriculum = Curriculum(
            pacing=str(source.choice(get_args(Pacing))),
            order=str(source.choice(["easy_first", "hard_first", "random"])),
            start=float(source.uniform(0.05, 0.9)),
            until=str(source.choice(["50%", "1 epoch", "3 steps"])),
        )
    return Case(
        num_examples,
        batch_size,
        seed=int(source.integers(1000)),
        order=str(source.choice(ORDERS, p=[0.45, 0.45, 0.1])),
        curriculum=curriculum,
        segments=tuple(
            (at, int(source.integers(1, 9)), str(source.choice(MICRO)), str(source.choice(["padded", "useful"])))
            for at in stops
        ),
    )


def check(case: Case) -> None:
    """Run it, from stop to stop, and look at what each forward of each rank was given."""
    whole, total, lengths = case.sampler(), EPOCHS * case.steps_per_epoch, case.lengths
    seen = [Counter() for _ in range(EPOCHS)]
    ends = [first for first, *_ in case.segments[1:]] + [total]
    for (first, num_ranks, micro, tokens), end in zip(case.segments, ends, strict=True):
        sampler, limit = case.sampler(), MicroBatch(micro)
        for step in range(first, end):
            draws = sampler.draws(step)
            assert draws == whole.draws(step)
            ranks = cut(draws, lengths, num_ranks=num_ranks, micro_batch=limit, tokens=tokens)
            assert len(ranks) == num_ranks and len({len(batches) for batches in ranks}) == 1
            given = [int(index) for batches in ranks for batch in batches for index in indices_of(batch)]
            assert sorted(given) == sorted(indices_of(draws).tolist())
            seen[step // case.steps_per_epoch].update(given)
            if limit.unit == "examples":
                assert all(len(batch) <= limit.amount for batches in ranks for batch in batches)
    check_epochs(case, seen)
    check_evaluation(case)


def check_epochs(case: Case, seen: list[Counter]) -> None:
    everything = Counter(range(case.num_examples))
    until = 0 if case.curriculum is None else case.at(0).steps(case.curriculum.until)
    for epoch, counts in enumerate(seen):
        if case.order == "balanced":
            assert sum(counts.values()) <= case.batch_size * case.steps_per_epoch
        elif epoch * case.steps_per_epoch >= until:
            assert counts == everything
        else:
            assert counts.keys() <= everything.keys()


def check_evaluation(case: Case) -> None:
    """Each example of a split once, in the order of the split, and as many forwards on each rank."""
    for _, num_ranks, micro, tokens in case.segments:
        every, limit = Draws(np.arange(case.num_examples)), MicroBatch(micro).times(4)
        shares = cut(every, case.lengths, num_ranks=num_ranks, micro_batch=limit, tokens=tokens)
        assert len({len(share) for share in shares}) == 1
        order = np.concatenate([indices_of(part) for share in shares for part in share])
        assert len(order) == case.num_examples
        restored = order[_by_example(order, np.ones(len(order), np.int64))]
        assert restored.tolist() == list(range(case.num_examples))


def check_all(numbers: range) -> None:
    for number in numbers:
        try:
            check(drawn(number))
        except AssertionError as fault:
            raise AssertionError(f"case {number}: {drawn(number)}") from fault


@pytest.mark.parametrize("block", range(4))
def test_each_example_exactly_once_per_epoch(block):
    """2,000 cases."""
    check_all(range(500 * block, 500 * (block + 1)))


@pytest.mark.drill
@pytest.mark.parametrize("block", range(20))
def test_each_example_exactly_once_per_epoch_in_many_more(block):
    """100,000 cases."""
    check_all(range(5000 * block, 5000 * (block + 1)))


def test_the_cases_are_of_all_kinds():
    cases = [drawn(number) for number in range(2000)]
    assert {case.order for case in cases} == set(ORDERS)
    assert {ranks for case in cases for _, ranks, *_ in case.segments} == set(range(1, 9))
    assert {micro for case in cases for *_, micro, _ in case.segments} == set(MICRO)
    assert sum(case.curriculum is not None for case in cases) > 400
    assert sum(case.num_examples % case.batch_size == 0 for case in cases) > 200
    assert sum(case.num_examples % case.batch_size > 0 for case in cases) > 200
    assert sum(case.num_examples < max(ranks for _, ranks, *_ in case.segments) for case in cases) > 100
    assert sum(len(case.segments) > 1 for case in cases) > 800
