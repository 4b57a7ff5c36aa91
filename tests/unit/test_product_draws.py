"""Invariant 10 over pacing x order x difficulty x sampling x ranks: each draws its own of what may be drawn."""

from __future__ import annotations

from collections import Counter
from typing import get_args, get_type_hints

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.curricula import Curriculum
from finetune.curricula.pacing import Pacing
from finetune.data.sampling import MicroBatch, Order, Sampler, cut
from finetune.progress import Progress

PACINGS = st.sampled_from(get_args(Pacing))
ORDERS = st.sampled_from(get_args(get_type_hints(Curriculum)["order"]))
MICRO = st.sampled_from(["1 example", "3 examples", "64 examples", "40 tokens"])


@st.composite
def difficulties(draw, size: int) -> np.ndarray:
    """Few levels, all different, or with some that are not known."""
    source = np.random.default_rng(draw(st.integers(0, 5)))
    kind = draw(st.sampled_from(["levels", "different", "unknown"]))
    values = source.integers(0, 4, size).astype(np.float64) if kind == "levels" else source.normal(size=size)
    if kind == "unknown":
        values[source.random(size) < 0.3] = np.nan
    return values


@st.composite
def curricula(draw) -> Curriculum:
    pacing = draw(PACINGS)
    options = {"stages": draw(st.integers(2, 9))} if pacing == "step" else {}
    options |= {"power": draw(st.sampled_from([0.5, 1.0, 2.0, 5.0]))} if pacing in ("root", "competence") else {}
    until = draw(st.sampled_from(["0%", "30%", "100%", "1 epoch", "5 steps"]))
    return Curriculum(pacing=pacing, order=draw(ORDERS), start=draw(st.floats(0.01, 1)), until=until, **options)


@settings(deadline=None, max_examples=300)
@given(st.data(), curricula(), st.integers(1, 120), st.integers(1, 30), st.integers(0, 3))
def test_every_draw_of_every_curriculum(data, curriculum, num, batch_size, seed):
    difficulty = data.draw(difficulties(num))
    order = data.draw(st.sampled_from(get_args(Order)))
    num_ranks, micro_batch = data.draw(st.integers(1, 5)), MicroBatch(data.draw(MICRO))
    source = np.random.default_rng(seed)
    lengths, labels = source.integers(1, 30, num).astype(np.int32), source.integers(0, 3, num)
    per_epoch, num_epochs = -(-num // batch_size), data.draw(st.integers(1, 3))
    total = per_epoch * num_epochs
    course = curriculum.course(difficulty, seed=seed, batch_size=batch_size)
    clocks = [Progress(step, total, per_epoch) for step in range(total)]

    def made() -> Sampler:
        return Sampler(
            num,
            batch_size=batch_size,
            seed=seed,
            order=order,
            lengths=lengths,
            labels=labels,
            visible=lambda step: course.visible(clocks[step]),
        )

    assert sorted(course.ranking.tolist()) == list(range(num))
    sampler, shares, counts, drawn = made(), [], [], []
    for clock in clocks:
        visible = course.visible(clock)
        assert visible.tolist() == course.ranking[: len(visible)].tolist()
        assert len(visible) >= min(batch_size, num)
        shares.append(curriculum.share(clock))
        counts.append(len(visible))
        draws = sampler.draws(clock.step)
        found = draws.index.tolist()
        assert found and set(found) <= set(visible.tolist())
        assert order == "balanced" or len(set(found)) == len(found)
        full = batch_size if order == "balanced" else min(batch_size, num)
        assert len(found) == full or len(visible) == num
        drawn.append(Counter(found))
        ranks = cut(draws, lengths, num_ranks=num_ranks, micro_batch=micro_batch)
        assert len({len(batches) for batches in ranks}) == 1 and len(ranks) == num_ranks
        dealt = Counter(index for batches in ranks for batch in batches for index in batch.index.tolist())
        assert dealt == drawn[-1]  # disjoint, and together the update
    assert shares == sorted(shares) and counts == sorted(counts) and 0 < shares[0] and shares[-1] <= 1
    for number in range(num_epochs) if order != "balanced" else ():
        own = slice(number * per_epoch, (number + 1) * per_epoch)
        if counts[own][0] == num:
            assert sum(drawn[own], Counter()) == Counter(range(num))
    resumed = made()
    start = data.draw(st.integers(0, total - 1))
    assert [Counter(resumed.draws(step).index.tolist()) for step in range(start, total)] == drawn[start:]


@settings(deadline=None, max_examples=150)
@given(curricula(), st.integers(1, 120), st.integers(1, 30), st.integers(0, 3))
def test_the_control_arm_shows_as_many_at_every_step(curriculum, num, batch_size, seed):
    """Beside easy first; hard first has other ties, and so other stairs where they come together."""
    from dataclasses import replace

    difficulty = np.random.default_rng(seed).integers(0, 5, num).astype(np.float64)
    arms = [
        replace(curriculum, order=order).course(difficulty, seed=seed, batch_size=batch_size)
        for order in ("easy_first", "random")
    ]
    for step in range(30):
        easy, control = (arm.visible(Progress(step, 30, 10)) for arm in arms)
        assert len(easy) == len(control)
