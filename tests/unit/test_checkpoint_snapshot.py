"""A snapshot holds exact copies in memory that is made once; an errand is over when it was waited for."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import torch

from finetune.checkpoints.errand import Errand
from finetune.checkpoints.snapshot import Snapshot


def content() -> dict:
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 7, generator=draw)
    model = {
        "plain": weights,
        "transposed": weights.t(),
        "channels_last": torch.randn(2, 3, 4, 5, generator=draw).to(memory_format=torch.channels_last),
        "strided": torch.arange(20)[::3],
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 4),
        "bf16": weights.bfloat16(),
        "bool": weights > 0,
        "nan": torch.tensor([float("nan"), float("-inf"), -0.0], dtype=torch.float64),
    }
    return {"model": model, "optimizer": {"plain/exp_avg": torch.randn(300, 300, generator=draw)}}


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def test_copies_are_exact_and_of_their_own():
    tensors, snapshot = content(), Snapshot()
    copies = snapshot.take(tensors)
    snapshot.wait()
    before = {name: bits(tensor) for name, tensor in tensors["model"].items()}
    for part in tensors.values():
        for tensor in part.values():
            tensor.zero_()
    assert {name: bits(copy) for name, copy in copies["model"].items()} == before
    for name, copy in copies["model"].items():
        assert (copy.dtype, copy.shape) == (tensors["model"][name].dtype, tensors["model"][name].shape)
    assert copies["optimizer"]["plain/exp_avg"].abs().sum() > 0


def test_the_memory_is_used_again_and_is_one_copy():
    tensors, snapshot = content(), Snapshot()
    assert snapshot.num_bytes == 0
    first = snapshot.take(tensors)
    place, size = first["model"]["plain"].data_ptr(), snapshot.num_bytes
    needed = sum(tensor.numel() * tensor.element_size() for part in tensors.values() for tensor in part.values())
    assert needed <= size <= needed + 64 * sum(map(len, tensors.values()))
    del first
    assert snapshot.take(tensors)["model"]["plain"].data_ptr() == place
    snapshot.release()
    assert snapshot.num_bytes == 0


def test_moments_that_come_later_find_room():
    tensors, snapshot = content(), Snapshot()
    snapshot.take({"model": tensors["model"]})
    copies = snapshot.take(tensors)
    assert bits(copies["optimizer"]["plain/exp_avg"]) == bits(tensors["optimizer"]["plain/exp_avg"])


def test_an_errand_gives_its_result_and_ends_its_thread():
    before = threading.active_count()
    errand = Errand(lambda: threading.current_thread().name)
    assert errand.result().startswith("checkpoint") and errand.result().startswith("checkpoint")
    assert threading.active_count() == before


def test_an_errands_fault_is_raised_where_it_is_waited_for():
    def work():
        raise TypeError("not a tensor")

    errand = Errand(work)
    errand.outlast()
    with pytest.raises(TypeError, match="not a tensor"):
        errand.result()


def test_an_errand_outlasts_interrupts():
    """Two of them while it is waited for: it is done all the same, and they are not lost."""
    done, interrupts, before = [], [], signal.getsignal(signal.SIGALRM)

    def interrupt(*_):
        interrupts.append(True)
        raise KeyboardInterrupt

    ends = time.monotonic() + 60

    def work():
        while len(interrupts) < 2 and time.monotonic() < ends:
            time.sleep(0.01)
        done.append(True)

    signal.signal(signal.SIGALRM, interrupt)
    try:
        errand = Errand(work)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        with pytest.raises(KeyboardInterrupt):
            errand.outlast()
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert done == [True]
