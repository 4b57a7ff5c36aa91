"""An update that does not fit in memory is done again, on every rank, in micro-batches of half the size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

from ..data.sampling import MicroBatch, cut
from ..errors import ConfigError

if TYPE_CHECKING:
    from .loop import Training

T = TypeVar("T")

_ADVICE = (
    "lower task.max_length or task.image_size, choose a strategy that trains less (lora, freeze), or take a device "
    "with more memory"
)
# Not "out of shared memory", which is of a loader process.
_LACKING = re.compile(r"out of memory|can't allocate memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED", re.IGNORECASE)


def lacks_memory(fault: BaseException) -> bool:
    """Whether a computation failed for want of memory: Python's, the device's, or the CPU allocator's word."""
    if isinstance(fault, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(fault, RuntimeError) and bool(_LACKING.search(str(fault)))


def within_memory(work: Callable[[], T], *, instead: Callable[[], T]) -> tuple[T, bool]:
    """What ``work`` gives; where it lacks memory, what ``instead`` gives, and that it did.

    Raises:
        MemoryError: There is none for ``instead`` either.
    """
    try:
        return work(), False
    except Exception as fault:
        if not lacks_memory(fault):
            raise
    # Only here, as the fault held on to what was computed.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # kept in pieces, it may serve no larger tensor
    try:
        return instead(), True
    except Exception as fault:  # whatever it is: under DDP also that a backward was broken off
        raise MemoryError(str(fault)) from fault


def redo_smaller(run: Training, step: int) -> None:
    """Set the clock back to an update for which some rank lacked memory, and halve what one forward takes.

    Every rank calls it, and comes to the same size by itself. The result is that of a run that was cut so from this
    update on: the loss is a sum over the update, however it is cut.

    Raises:
        ConfigError: One example is too much already.
    """
    state, was = run.state, run.micro_batch
    most = _most_examples(run, step)
    if most == 1:
        raise ConfigError(f"out of memory at update {step}, with one example in each forward: {_ADVICE}.")
    while _most_examples(run, step) == most:
        state.halvings += 1
    state.step = step
    run.is_stale = True
    _tell(run, was)


def evaluated(run: Training, work: Callable[[], T]) -> T:
    """What an evaluation by ``run.micro_batch`` gives, halved until it fits in memory.

    Raises:
        ConfigError: One example does not fit, or there are several ranks, of which the others wait elsewhere.
    """
    with told_of_memory(run):
        while True:
            try:
                return work()
            except Exception as fault:
                is_last = run.placement.ranks.count > 1 or run.micro_batch.amount == 1
                if is_last or not lacks_memory(fault):
                    raise
            was = run.micro_batch
            run.state.halvings += 1
            run.is_stale = True  # or a run that is resumed here would be cut otherwise
            _tell(run, was)


def _tell(run: Training, was: MicroBatch) -> None:
    step, before, now = run.state.step, str(was), str(run.micro_batch)
    run.shown.line(f"out of memory after step {step}: micro-batches of {now} from here on, not {before}")
    if run.log is not None:
        run.log.append({"step": step, "micro_batch": now, "was": before, "why": "out of memory"})


def _most_examples(run: Training, step: int) -> int:
    """In one forward of this update, on any rank."""
    draws, lengths = run.sampler.draws(step), run.prepared.train.lengths
    shares = cut(draws, lengths, num_ranks=run.placement.ranks.count, micro_batch=run.micro_batch, tokens=run.tokens)
    return max(len(part) for share in shares for part in share)


@contextmanager
def told_of_memory(run: Training | None = None) -> Iterator[None]:
    """Turn a want of memory that halving cannot mend here into one message.

    Args:
        run: Where a smaller micro-batch may help; None: anywhere else.

    Raises:
        ConfigError: Perhaps on this rank alone; the others lose it.
    """
    try:
        yield
    except Exception as fault:
        if not lacks_memory(fault):
            raise
        error = ConfigError(_told_of(fault) if run is None else _told_of_forwards(run))
        error.is_own = True
        raise error from fault


def _told_of(fault: Exception) -> str:
    said = str(fault).strip().splitlines()
    return f"out of memory{f' ({said[0]})' if said else ''}: {_ADVICE}."


def _told_of_forwards(run: Training) -> str:
    smaller = ""
    if run.micro_batch.amount > 1:
        go_on = " and go on with --resume" if run.prepared.config.output_dir is not None else ""
        smaller = f"write micro_batch: {run.micro_batch.halved(1)}{go_on}, or "
    return (
        f"out of memory after step {run.state.step} with micro_batch: {run.micro_batch}; it cannot be tried again in "
        f"smaller parts, as ranks had begun to share it, or nothing is left: {smaller}{_ADVICE}."
    )
