from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.curricula import Curriculum
from finetune.curricula.pacing import Pacing
from finetune.data.sampling import MicroBatch, Sampler, check_order, cut
from finetune.errors import ConfigError
from finetune.progress import Progress

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5))  # examples, batch size, seed
ORDERS = st.sampled_from(["random", "bucketed"])
MICRO = st.sampled_from(["1 example", "3 examples", "64 examples", "1 token", "40 tokens", "10000 tokens"])


def lengths_of(num_examples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 30, num_examples).astype(np.int32)


def sampler(num_examples: int, batch_size: int, seed: int, *, order: str = "random", **arguments) -> Sampler:
    lengths = lengths_of(num_examples)
    return Sampler(num_examples, batch_size=batch_size, seed=seed, order=order, lengths=lengths, **arguments)


def with_curriculum(
    num_examples: int, batch_size: int, seed: int, *, epochs: int = 3, **fields
) -> tuple[Sampler, list]:
    """As the loop builds it; and the set of indices that may be drawn at each step."""
    per_epoch = -(-num_examples // batch_size)
    total = per_epoch * epochs
    curriculum = Curriculum(**fields)
    ranking = curriculum.ranking(lengths_of(num_examples).astype(np.float64), seed=seed)

    def visible(step: int) -> np.ndarray:
        clock = Progress(step, total, per_epoch)
        return ranking[: curriculum.num_visible(clock, num_examples=num_examples, batch_size=batch_size)]

    made = sampler(num_examples, batch_size, seed, visible=visible)
    return made, [set(visible(step).tolist()) for step in range(total)]


def epoch(made: Sampler, number: int) -> list[list[int]]:
    first = number * made.steps_per_epoch
    return [[draw.index for draw in made.draws(step)] for step in range(first, first + made.steps_per_epoch)]


@settings(deadline=None, max_examples=150)
@given(SIZES, ORDERS, st.integers(1, 8), MICRO)
def test_every_example_exactly_once_per_epoch_across_ranks_and_micro_batches(sizes, order, num_ranks, micro):
    num_examples, batch_size, seed = sizes
    made, lengths = sampler(*sizes, order=order), lengths_of(num_examples)
    seen: list[list[Counter]] = [[Counter() for _ in range(num_ranks)] for _ in range(2)]
    for step in range(2 * made.steps_per_epoch):
        draws = made.draws(step)
        number = step // made.steps_per_epoch
        ranks = cut(draws, lengths, num_ranks=num_ranks, micro_batch=MicroBatch(micro))
        assert len({len(batches) for batches in ranks}) == 1 and len(ranks) == num_ranks
        for rank, batches in enumerate(ranks):
            assert batches
            for batch in batches:
                assert all((draw.step, draw.epoch) == (step, number) for draw in batch)
                seen[number][rank].update(draw.index for draw in batch)
    everything = Counter(range(num_examples))
    assert [sum(counters, Counter()) for counters in seen] == [everything, everything]


@settings(deadline=None, max_examples=60)
@given(SIZES, ORDERS)
def test_updates_are_full_but_for_the_last_of_an_epoch(sizes, order):
    num_examples, batch_size, _ = sizes
    made = sampler(*sizes, order=order)
    assert made.steps_per_epoch == -(-num_examples // batch_size)
    counts = [len(batch) for batch in epoch(made, 1)]
    assert counts[:-1] == [batch_size] * (len(counts) - 1) and 1 <= counts[-1] <= batch_size


@settings(deadline=None, max_examples=40)
@given(SIZES, ORDERS, st.integers(0, 200))
def test_a_resume_at_any_step_draws_the_same(sizes, order, start):
    straight, resumed = sampler(*sizes, order=order), sampler(*sizes, order=order)
    before = [straight.draws(step) for step in range(start + 6)]
    assert [resumed.draws(step) for step in range(start, start + 6)] == before[start:]
    assert straight.draws(0) == before[0]  # and none of it depends on what was asked before


@settings(deadline=None, max_examples=60)
@given(SIZES, ORDERS, st.integers(1, 40))
def test_the_order_does_not_depend_on_how_it_is_cut(sizes, order, step):
    """The same global batch for every number of ranks: cutting only deals it out."""
    draws = sampler(*sizes, order=order).draws(step)
    for num_ranks in (1, 2, 3, 8):
        ranks = cut(draws, lengths_of(sizes[0]), num_ranks=num_ranks, micro_batch=MicroBatch("4 examples"))
        assert sorted(draw for batches in ranks for batch in batches for draw in batch) == sorted(draws)


def test_no_two_epochs_or_seeds_have_the_same_order():
    orders = set()
    for seed in range(100):
        made = sampler(24, 5, seed)
        orders |= {tuple(index for batch in epoch(made, number) for index in batch) for number in range(20)}
    assert len(orders) == 100 * 20


def test_no_two_epochs_or_seeds_have_the_same_order_bucketed():
    orders = set()
    for seed in range(20):
        made = sampler(60, 5, seed, order="bucketed")
        orders |= {tuple(index for batch in epoch(made, number) for index in batch) for number in range(10)}
    assert len(orders) == 20 * 10


def test_each_example_has_equal_chances_at_each_place():
    first = Counter(sampler(10, 5, seed).draws(0)[0].index for seed in range(2000))
    assert set(first) == set(range(10)) and max(first.values()) < 260 and min(first.values()) > 145  # 200 +- 4 sigma


def test_the_seed_of_a_draw_is_keyed():
    """By the run's seed, the step and the example: one that a curriculum draws again is transformed anew."""
    seeds = {}
    for seed in (1, 2):
        made = with_curriculum(20, 8, seed, start=0.4, until="100%")[0]
        for step in range(3 * made.steps_per_epoch):
            assert made.draws(step) == made.draws(step)
            seeds |= {(seed, step, draw.index): draw.seed for draw in made.draws(step)}
    assert len(set(seeds.values())) == len(seeds) > 2 * 8 * 8


def test_buckets_hold_texts_of_similar_length():
    lengths = lengths_of(2000)
    spread = {}
    for order in ("random", "bucketed"):
        batches = epoch(Sampler(2000, batch_size=16, seed=0, order=order, lengths=lengths), 0)
        spread[order] = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread["bucketed"] < spread["random"] / 10


def test_buckets_come_in_random_order():
    lengths = lengths_of(2000)
    batches = epoch(Sampler(2000, batch_size=16, seed=0, order="bucketed", lengths=lengths), 0)
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.3


# Curricula


@settings(deadline=None, max_examples=60)
@given(
    SIZES,
    st.sampled_from(get_args(Pacing)),
    st.sampled_from(["easy_first", "hard_first", "random"]),
    st.floats(0.05, 0.9),
    st.sampled_from(["50%", "1 epoch", "3 steps"]),
)
def test_a_curriculum_draws_only_what_is_visible_and_ends_with_all(sizes, pacing, order, start, until):
    num_examples, batch_size, _ = sizes
    made, visible = with_curriculum(*sizes, pacing=pacing, order=order, start=start, until=until)
    total = len(visible)
    shown = Progress(0, total, made.steps_per_epoch).steps(until)
    for step in range(total):
        indices = [draw.index for draw in made.draws(step)]
        assert set(indices) <= visible[step] and len(set(indices)) == len(indices)
        if len(visible[step]) < num_examples:
            assert len(indices) == batch_size
    assert all(found == set(range(num_examples)) for found in visible[shown:])
    last = total // made.steps_per_epoch - 1
    if last * made.steps_per_epoch >= shown:  # a whole epoch after it
        assert Counter(index for batch in epoch(made, last) for index in batch) == Counter(range(num_examples))


def test_a_curriculum_shows_the_easy_ones_first():
    lengths = lengths_of(200)
    for order, sign in (("easy_first", 1), ("hard_first", -1)):
        made, _ = with_curriculum(200, 10, 0, order=order, start=0.2, until="100%")
        means = [np.mean([lengths[draw.index] for draw in made.draws(step)]) for step in range(60)]
        assert sign * (np.mean(means[-15:]) - np.mean(means[:15])) > 4


def test_a_curriculum_resumes_at_any_step():
    straight, _ = with_curriculum(97, 8, 3, until="60%")
    before = [straight.draws(step) for step in range(39)]
    for start in range(0, 39, 5):
        resumed, _ = with_curriculum(97, 8, 3, until="60%")
        assert [resumed.draws(step) for step in range(start, 39)] == before[start:]


def test_updates_of_one_stage_differ():
    made, visible = with_curriculum(200, 5, 0, pacing="step", until="100%")
    assert visible[0] == visible[1]
    assert [draw.index for draw in made.draws(0)] != [draw.index for draw in made.draws(1)]


# Balanced classes


def uneven(num_examples: int, seed: int = 0) -> np.ndarray:
    """Three classes, of which the last is rare; each has an example."""
    labels = np.random.default_rng(seed).choice(3, num_examples, p=[0.7, 0.28, 0.02])
    labels[: min(3, num_examples)] = np.arange(3)[:num_examples]
    return labels.astype(np.int64)


def balanced(num_examples: int, batch_size: int, seed: int, **arguments) -> Sampler:
    return Sampler(
        num_examples,
        batch_size=batch_size,
        seed=seed,
        order="balanced",
        labels=uneven(num_examples),
        **arguments,
    )


def test_classes_come_equally_often_and_each_example_of_a_class_too():
    labels, made = uneven(400), balanced(400, 50, 0)
    drawn = np.concatenate([made.draws(step).index for step in range(400)])
    shares = np.bincount(labels[drawn]) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.015)  # 3.5 standard deviations of 20,000 draws
    counts = np.bincount(drawn[labels[drawn] == 1], minlength=400)[labels == 1]
    assert counts.min() > 0 and counts.max() < 2.2 * counts.mean()


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 200))
def test_balanced_updates_are_full_and_a_function_of_the_step(sizes, step):
    num_examples, batch_size, seed = sizes
    made = balanced(*sizes)
    assert made.steps_per_epoch == -(-num_examples // batch_size)
    draws = made.draws(step)
    assert len(draws) == batch_size and 0 <= min(draws.index) and max(draws.index) < num_examples
    assert balanced(*sizes).draws(step) == draws
    assert (draws.step, draws.epoch) == (step, step // made.steps_per_epoch)


def test_balanced_orders_differ_by_seed_and_step():
    orders = {tuple(balanced(100, 16, seed).draws(step).index) for seed in range(20) for step in range(20)}
    assert len(orders) == 400


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 20), st.data())
def test_balanced_draws_are_among_the_visible_and_balance_those(sizes, step, data):
    count = data.draw(st.integers(1, sizes[0]))
    shown = np.random.default_rng(count).permutation(sizes[0])[:count]
    made = balanced(*sizes, visible=lambda step: shown)
    assert set(made.draws(step).index) <= set(shown)
    if count == sizes[0]:
        assert made.draws(step) == balanced(*sizes).draws(step)


def test_a_class_that_is_hidden_leaves_its_share_to_the_others():
    labels = uneven(400)
    shown = np.flatnonzero(labels != 0)
    made = balanced(400, 50, 0, visible=lambda step: shown)
    drawn = labels[np.concatenate([made.draws(step).index for step in range(100)])]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [0, 0.5, 0.5], atol=0.03)


@pytest.mark.parametrize("labels", [None, np.zeros(4, np.float32), np.zeros((4, 2), np.int64)])
def test_what_has_no_classes_cannot_be_balanced(labels):
    check_order("random", labels)
    with pytest.raises(ConfigError, match="order: balanced .* one class each"):
        check_order("balanced", labels)


# Cutting


@settings(deadline=None, max_examples=100)
@given(SIZES, st.integers(1, 8), MICRO)
def test_micro_batches_keep_their_size(sizes, num_ranks, micro):
    lengths, limit = lengths_of(sizes[0]), MicroBatch(micro)
    for batches in cut(sampler(*sizes).draws(0), lengths, num_ranks=num_ranks, micro_batch=limit):
        for batch in batches:
            padded = max((int(lengths[draw.index]) for draw in batch), default=0) * len(batch)
            assert len(batch) <= 1 or (len(batch) if limit.unit == "examples" else padded) <= limit.amount


def test_no_more_micro_batches_than_needed():
    draws = sampler(64, 32, 0).draws(0)
    for micro, count in (("32 examples", 1), ("16 examples", 2), ("5 examples", 7), ("1 example", 32)):
        (batches,) = cut(draws, lengths_of(64), num_ranks=1, micro_batch=MicroBatch(micro))
        assert len(batches) == count and all(batches)


def test_ranks_get_equal_work():
    lengths = lengths_of(400)
    draws = sampler(400, 64, 0).draws(0)
    ranks = cut(draws, lengths, num_ranks=4, micro_batch=MicroBatch("8 examples"))
    tokens = [sum(int(lengths[draw.index]) for batch in batches for draw in batch) for batches in ranks]
    assert max(tokens) - min(tokens) <= lengths.max()
    assert [sum(map(len, batches)) for batches in ranks] == [16] * 4


def test_a_rank_short_of_examples_gets_empty_micro_batches():
    draws = sampler(3, 8, 0).draws(0)
    ranks = cut(draws, lengths_of(3), num_ranks=4, micro_batch=MicroBatch("1 example"))
    assert [[len(batch) for batch in batches] for batches in ranks] == [[1], [1], [1], [0]]
    ranks = cut(draws, lengths_of(3), num_ranks=2, micro_batch=MicroBatch("1 example"))
    assert [[len(batch) for batch in batches] for batches in ranks] == [[1, 1], [1, 0]]


def cut_one_by_one(draws, lengths, *, num_ranks: int, limit: MicroBatch) -> list:
    """What ``cut`` does, draw by draw: longest first, dealt in turn, and closed when one more would not fit."""
    by_length = sorted(draws, key=lambda draw: (-int(lengths[draw.index]), draw.index))
    ranks = []
    for rank in range(num_ranks):
        batches: list[list] = []
        for draw in by_length[rank::num_ranks]:
            count = len(batches[-1]) + 1 if batches else 0
            size = count if limit.unit == "examples" else count * int(lengths[batches[-1][0].index]) if batches else 0
            if batches and size <= limit.amount:
                batches[-1].append(draw)
            else:
                batches.append([draw])
        ranks.append(batches)
    most = max(map(len, ranks))
    return [batches + [[]] * (most - len(batches)) for batches in ranks]


@settings(deadline=None, max_examples=100)
@given(SIZES, st.integers(1, 8), MICRO)
def test_arrays_are_cut_as_draws_would_be(sizes, num_ranks, micro):
    draws, lengths, limit = sampler(*sizes).draws(0), lengths_of(sizes[0]), MicroBatch(micro)
    found = cut(draws, lengths, num_ranks=num_ranks, micro_batch=limit)
    assert [[list(batch) for batch in batches] for batches in found] == cut_one_by_one(
        draws, lengths, num_ranks=num_ranks, limit=limit
    )


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(1, 4), st.integers(1, 200))
def test_useful_tokens_alone_are_counted_where_nothing_is_padded(sizes, num_ranks, amount):
    """No micro-batch holds more, and the next example would not have fitted."""
    draws, lengths = sampler(*sizes).draws(0), lengths_of(sizes[0])
    limit = MicroBatch(f"{amount} tokens")
    ranks = cut(draws, lengths, num_ranks=num_ranks, micro_batch=limit, tokens="useful")
    assert sorted(draw for batches in ranks for batch in batches for draw in batch) == sorted(draws)
    for batches in ranks:
        held = [[int(lengths[draw.index]) for draw in batch] for batch in batches if len(batch)]
        for batch, following in zip(held, [*held[1:], None], strict=False):
            assert len(batch) == 1 or sum(batch) <= amount
            assert following is None or sum(batch) + following[0] > amount


# Draws


def test_draws_are_a_sequence_of_draws():
    from finetune.data.store import Draws, indices_of

    draws = sampler(30, 8, 3).draws(5)
    made = list(draws)
    assert isinstance(draws, Draws) and len(made) == len(draws) == 8 and all(isinstance(d, tuple) for d in made)
    assert draws[2] == made[2] and draws[-1] == made[-1] and list(draws[1:3]) == made[1:3]
    assert draws == made and draws != made[:-1] and draws != sampler(30, 8, 4).draws(5)
    assert indices_of(draws).tolist() == indices_of(made).tolist() == [draw.index for draw in made]
    assert {(draw.step, draw.epoch) for draw in made} == {(5, 1)} and all(draw.seed for draw in made)
    assert [draw.seed for draw in Draws(np.arange(3))] == [0, 0, 0]


def test_a_batch_of_texts_makes_no_object_per_example(tmp_path, monkeypatch):
    """A million examples cost a million numbers: no ``Draw`` and no seed is made."""
    from finetune.data import store as module
    from finetune.data.loading import weighted_batch
    from tests.runs import text_task

    store = text_task(tmp_path).load_split("train")
    made = []
    monkeypatch.setattr(module, "seed_for", lambda *key: made.append(key) or 1)
    draws = Sampler(len(store), batch_size=8, seed=0).draws(0)
    (batches,) = cut(draws, store.lengths, num_ranks=1, micro_batch=MicroBatch("8 examples"))
    weighted_batch(store, batches[0])
    assert not made
    assert draws[0].seed and len(made) == 1


@pytest.mark.parametrize("text", ["8 examples", " 1 example ", "4096 tokens", "8  examples"])
def test_a_micro_batch_has_a_unit(text):
    assert MicroBatch(text).amount == int(text.split()[0])


@pytest.mark.parametrize(
    "text", ["8", "auto", "0 examples", "-1 examples", "1.5 examples", "8 batches", "", "² tokens"]
)
def test_anything_else_is_no_micro_batch(text):
    with pytest.raises(ValueError, match="is not a micro-batch; write auto, e.g. '8 examples', or '4096 tokens'"):
        MicroBatch(text)
