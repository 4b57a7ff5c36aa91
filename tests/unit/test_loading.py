from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from finetune.data.loading import ahead, updates, weighted_batch
from finetune.data.sampling import MicroBatch, Sampler, cut
from tests.runs import image_task, text_task

STEPS = range(2, 9)  # across the end of an epoch, and not from its start


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return {
        "text": text_task(folder).load_split("train"),
        "images": image_task(folder, augment="standard").load_split("train"),
    }


def cuts_of(store, *, rank: int = 0, num_ranks: int = 1, batch_size: int = 4):
    sampler = Sampler(len(store), batch_size=batch_size, seed=5, lengths=store.lengths)

    def cuts(step: int):
        micro_batch = MicroBatch("3 examples")
        return cut(sampler.draws(step), store.lengths, num_ranks=num_ranks, micro_batch=micro_batch)[rank]

    return cuts


def per_example(batch) -> list[torch.Tensor]:
    """What has a row for each example; flat tokens have one for each of theirs, as ``lengths`` says."""
    tokens = [tensor for name, tensor in batch.items() if name in ("input_ids", "token_type_ids")]
    assert all(len(tensor) == int(batch["lengths"].sum()) for tensor in tokens)
    return [tensor for name, tensor in batch.items() if name not in ("input_ids", "token_type_ids")]


def assert_equal(found, expected) -> None:
    assert len(found) == len(expected)
    for mine, yours in zip(found, expected, strict=True):
        assert [set(batch) for batch in mine] == [set(batch) for batch in yours]
        for one, other in zip(mine, yours, strict=True):
            for name, tensor in one.items():
                assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("kind", ["text", "images"])
def test_the_batches_do_not_depend_on_the_number_of_workers(stores, kind):
    """Random transforms included, and from any step."""
    store = stores[kind]
    here = list(updates(store, cuts_of(store), steps=STEPS, workers=0))
    assert len(here) == len(STEPS) and all(len(batches) == 2 for batches in here[:2])
    for workers in (1, 2):
        assert_equal(list(updates(store, cuts_of(store), steps=STEPS, workers=workers)), here)
    later = list(updates(store, cuts_of(store), steps=range(5, 9), workers=2))
    assert_equal(later, here[3:])


def test_a_random_transform_differs_between_epochs(stores):
    """Else the test above would hold for fixed transforms only."""
    store = stores["images"]
    per_epoch = -(-len(store) // 4)
    cuts = cuts_of(store)
    seen = {}
    for batches in updates(store, cuts, steps=range(2 * per_epoch), workers=0):
        for batch in batches:
            for index, pixels in zip(batch["index"].tolist(), batch["pixel_values"], strict=True):
                seen.setdefault(index, []).append(pixels)
    assert all(len(pixels) == 2 for pixels in seen.values()) and len(seen) == len(store)
    assert any(not torch.equal(*pixels) for pixels in seen.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_draws_nothing_from_the_global_generators(stores, workers):
    store = stores["images"]
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(updates(store, cuts_of(store), steps=range(2), workers=workers))
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_batch_holds_its_draws_each_of_weight_one(stores, kind):
    store = stores[kind]
    (draws, *_) = cuts_of(store)(0)
    batch = weighted_batch(store, draws)
    assert batch["index"].tolist() == [draw.index for draw in draws]
    assert batch["weights"].tolist() == [1.0] * len(draws)
    assert batch["labels"].tolist() == [store.labels[draw.index] for draw in draws]
    assert {len(tensor) for tensor in per_example(batch)} == {len(draws)}


@pytest.mark.parametrize("kind", ["text", "images"])
def test_no_draws_are_one_example_of_weight_zero(stores, kind):
    batch = weighted_batch(stores[kind], [])
    assert batch["weights"].tolist() == [0.0]
    assert {len(tensor) for tensor in per_example(batch)} == {1}


def test_a_rank_without_examples_runs_as_many_batches(stores):
    store = stores["text"]
    ranks = [
        list(updates(store, cuts_of(store, rank=rank, num_ranks=8), steps=range(3), workers=0)) for rank in range(8)
    ]
    assert {len(batches) for steps in ranks for batches in steps} == {1}
    for step in range(3):
        weights = [steps[step][0]["weights"].sum().item() for steps in ranks]
        assert weights == [1.0] * 4 + [0.0] * 4


def test_a_fault_in_the_data_reaches_the_loop(stores):
    """Here only: torch takes 5 s to shut down each worker that raised."""

    def broken(step: int):
        raise LookupError(f"no step {step}")

    with pytest.raises(LookupError, match="no step 0"):
        next(updates(stores["text"], broken, steps=range(2), workers=0))


# Made ahead by a thread, as for a GPU


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "batches"]


def test_batches_made_ahead_are_the_same(stores):
    store = stores["images"]
    here = list(updates(store, cuts_of(store), steps=STEPS, workers=0))
    assert_equal(list(ahead(updates(store, cuts_of(store), steps=STEPS, workers=0), ready=lambda made: made)), here)
    assert not threads()


def test_a_few_batches_are_made_ahead_and_no_more():
    made = []

    def batches():
        for number in range(100):
            made.append(number)
            yield [number]

    found = ahead(batches(), ready=lambda batch: [*batch, "ready"], depth=2)
    assert next(found) == [0, "ready"]
    deadline = time.monotonic() + 60
    while len(made) < 4 and time.monotonic() < deadline:  # taken, two waiting, one in hand
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 4
    found.close()
    assert not threads()


def test_a_fault_in_the_thread_reaches_the_loop(stores):
    def broken(step: int):
        raise LookupError(f"no step {step}")

    made = ahead(updates(stores["text"], broken, steps=range(2), workers=0), ready=lambda batch: batch)
    with pytest.raises(LookupError, match="no step 0"):
        next(made)
    assert not threads()


def test_on_a_cpu_there_is_no_thread(stores):
    store = stores["text"]
    found = updates(store, cuts_of(store), steps=STEPS, workers=0, device=torch.device("cpu"))
    next(found)
    assert not threads()
    found.close()


def test_what_python_reads_stays_on_the_cpu():
    from finetune.data.store import moved

    batch = {name: torch.ones(2) for name in ("input_ids", "lengths", "depth", "labels")}
    devices = {name: tensor.device.type for name, tensor in moved(batch, torch.device("meta")).items()}
    assert devices == {"input_ids": "meta", "lengths": "cpu", "depth": "cpu", "labels": "meta"}
