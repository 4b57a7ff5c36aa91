"""Batches for the draws of each update, made here or in loader processes."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import FinetuneError
from ..orphans import die_with_parent
from .loading_faults import Making, told_of_examples, told_of_senders
from .store import Draw, Store

if TYPE_CHECKING:
    from .store import Batch

_TIMEOUT_S = 300  # for what a loader process makes; torch's default waits for ever for one that hangs
_GONE_S = 5  # for a process to end that was killed
_CPU = torch.device("cpu")


def weighted_batch(store: Store, draws: Sequence[Draw]) -> Batch:
    """The batch of these draws, each of weight 1; for none, one example of weight 0.

    Every rank must run every forward (else DDP and FSDP wait for ever), so a rank without examples runs
    one that counts for nothing.

    Raises:
        DataError: They cannot be made; names the first that cannot.
    """
    those = draws or [Draw(0, 0, 0)]
    with told_of_examples(store, those):
        batch = store.batch(those)
    weight = 1.0 if draws else 0.0
    return {**batch, "weights": torch.full((len(draws) or 1,), weight)}


def updates(
    store: Store,
    cuts: Callable[[int], Sequence[Sequence[Draw]]],
    *,
    steps: range,
    workers: int,
    device: torch.device = _CPU,
    timeout_s: float = _TIMEOUT_S,
) -> Generator[list[Batch], None, None]:
    """The micro-batches of each step in turn.

    Args:
        store: Of the training split.
        cuts: A step's draws for this rank, micro-batch by micro-batch; pure, so workers need no state.
        steps: From where the run stands to its end.
        workers: Loader processes; the batches do not depend on how many. They end when the generator is closed.
        device: Where the batches go. For a GPU they are made ahead, in memory that it can copy from by itself.
        timeout_s: How long a loader process may take for a step.

    Raises:
        FinetuneError: As the store raised it; DataError for whatever else it raised.
        RuntimeError: A loader process has ended or hangs; a note says what it made then.
    """
    is_pinned = device.type == "cuda"
    if is_pinned:
        store = getattr(store, "leaving_bytes", store)  # images are scaled there, by ``moved``
    if workers:
        return _from_processes(store, cuts, steps=steps, workers=workers, pin=is_pinned, timeout_s=timeout_s)
    here = ([weighted_batch(store, draws) for draws in cuts(step)] for step in steps)
    return ahead(here, ready=_pinned) if is_pinned else here


def ahead(
    batches: Generator[list[Batch], None, None], *, ready: Callable[[list[Batch]], list[Batch]], depth: int = 2
) -> Generator[list[Batch], None, None]:
    """The same batches, made and passed through ``ready`` by a thread while the caller works on the ones before.

    The thread ends with this generator, and what it raises is raised here.
    """
    made: Queue[list[Batch] | BaseException | None] = Queue(depth)
    ended = threading.Event()

    def put(item: list[Batch] | BaseException | None) -> None:
        while not ended.is_set():
            try:
                return made.put(item, timeout=0.1)
            except Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put(ready(batch))
                if ended.is_set():
                    return
            put(None)
        except BaseException as fault:  # raised where the batch is asked for
            put(fault)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        thread.join()
        batches.close()


def _pinned(batches: list[Batch]) -> list[Batch]:
    return [{name: tensor.pin_memory() for name, tensor in batch.items()} for batch in batches]


class _Steps(Dataset):  # type: ignore[type-arg]
    """The micro-batches of one rank, addressed by step."""

    def __init__(self, store: Store, making: Making) -> None:
        self._store = store
        self._making = making

    def __getitem__(self, step: int) -> list[Batch] | FinetuneError:
        try:
            return self._making.batches(step, lambda draws: weighted_batch(self._store, draws))
        except FinetuneError as error:
            if error.__cause__ is not None:  # which is not sent
                error.add_note("".join(traceback.format_exception(error.__cause__)))
            return error  # as a value: one that is raised in a loader process arrives with a traceback as its message


def _from_processes(
    store: Store,
    cuts: Callable[[int], Sequence[Sequence[Draw]]],
    *,
    steps: range,
    workers: int,
    pin: bool,
    timeout_s: float,
) -> Generator[list[Batch], None, None]:
    """As ``updates`` has it, made in loader processes."""
    making = Making(store, cuts, workers=workers)
    loader = DataLoader(
        _Steps(store, making),
        sampler=steps,
        batch_size=None,
        collate_fn=_as_is,
        num_workers=workers,
        timeout=timeout_s,
        pin_memory=pin,
        multiprocessing_context="fork",  # the cuts are a closure
        generator=torch.Generator().manual_seed(0),  # else the loader draws from the global generator
        worker_init_fn=_outlive_signals,
    )
    iterator: Any = iter(loader)
    try:
        with making.told([process.pid for process in iterator._workers]), told_of_senders(iterator._workers):
            for batches in iterator:
                if isinstance(batches, FinetuneError):
                    raise batches
                yield batches
    finally:  # else they live for as long as anyone holds the exception that ended the run
        try:
            iterator._shutdown_workers()
        finally:  # also where an interrupt ended the waiting: nothing else ends them
            for process in iterator._workers:
                process.kill()
                process.join(_GONE_S)  # so that none is left as a zombie


def _outlive_signals(worker: int) -> None:
    """Leave it to the run what a signal means that is sent to all its processes, and end when the run does.

    However often: a scheduler and a launcher below it each send one.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    sys.excepthook = lambda *fault: None  # faults go through the queue; this gets the noise of threads


def _as_is(batches: list[Batch]) -> list[Batch]:
    return batches
