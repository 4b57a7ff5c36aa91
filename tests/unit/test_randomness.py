from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from finetune.randomness import generator, keyed, preserved, seed_everything, seed_for


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def test_a_seed_is_a_function_of_its_key():
    assert seed_for(42, "order", 3) == seed_for(42, "order", 3)
    assert 0 <= seed_for(42, "order", 3) < 2**63
    golden = seed_for(42, "order", 0), seed_for(0, "step", 7, 1)
    assert golden == (6559743570485470731, 2140494043239814858)  # a change would make old checkpoints resume wrongly


def test_keys_never_share_a_stream():
    keys = [(seed, purpose, *key) for seed in range(30) for purpose in ("order", "draw") for key in [(), (1,), (1, 1)]]
    keys += [(seed, "order", epoch) for seed in range(30) for epoch in range(2, 30)]
    keys += [(1, "order", 11), (1, "order", 1, 11), (11, "order", 1, 1)]
    assert len({seed_for(*key) for key in set(keys)}) == len(set(keys))


def test_the_next_epoch_is_not_the_next_seed():
    """As it is where seeds are added: seed 42 in epoch 1 is seed 43 in epoch 0."""
    assert seed_for(42, "order", 1) != seed_for(43, "order", 0)
    assert (generator(42, "order", 1).permutation(50) != generator(43, "order", 0).permutation(50)).any()


def test_all_three_generators_are_seeded():
    seed_everything(1, "step", 5)
    first = draws()
    seed_everything(1, "step", 5)
    assert draws() == first
    seed_everything(1, "step", 6)
    assert not set(draws()) & set(first)


def test_a_keyed_block_leaves_the_generators_as_they_were():
    seed_everything(0, "outside")
    expected = draws()
    seed_everything(0, "outside")
    with keyed(7, "inside"):
        inside = draws()
    assert draws() == expected
    with keyed(7, "inside"):
        assert draws() == inside


def test_generators_are_preserved_when_the_block_fails():
    seed_everything(0, "outside")
    expected = draws()
    seed_everything(0, "outside")
    with pytest.raises(RuntimeError), preserved():
        draws()
        raise RuntimeError
    assert draws() == expected
