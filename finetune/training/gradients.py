"""How the gradients of an update are computed: plainly, through compiled blocks, or by replaying a recording."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import FinetuneError
from ..progress import Progress
from ..tasks.base import Task
from .buckets import filled, fixed
from .cuda_graphs import Recordings, reason_of
from .memory import lacks_memory
from .placement import Placement
from .update import Shown, Totals, Trained, accumulate, output_of, summed

if TYPE_CHECKING:
    from ..data.store import Batch
    from ..encoders.compiling import CompiledBlocks

_FIXED = ("offsets", "positions")  # for recordings; otherwise kernels for groups of texts may be taken too


class Gradients:
    """Does as ``accumulate`` does, in the fast ways of a phase; at a failure, in the plain one from then on.

    Args:
        trained: What trains in the phase.
        batch_size: The most examples of an update.
        compiled: The blocks to call instead of the model's own.
        recordings: Where steps are recorded.
    """

    def __init__(
        self,
        trained: Trained,
        *,
        batch_size: int,
        compiled: CompiledBlocks | None = None,
        recordings: Recordings | None = None,
    ) -> None:
        self._trained = trained
        self._batch_size = batch_size
        self._compiled = compiled
        self._recordings = recordings

    def __call__(
        self,
        wrapped: nn.Module,
        micro_batches: Sequence[Batch],
        *,
        task: Task,
        progress: Progress,
        placement: Placement,
        factor: float,
    ) -> tuple[Totals, list[Shown]]:
        """As ``accumulate``."""
        settings: dict[str, Any] = {"task": task, "progress": progress, "placement": placement}

        def plainly(batches: Sequence[Batch]) -> tuple[Totals, list[Shown]]:
            return self._guarded(lambda: accumulate(wrapped, batches, factor=factor, **settings))

        batch = self._shaped(micro_batches)
        if self._recordings is None or batch is None:
            return plainly(micro_batches)
        num_examples = len(micro_batches[0]["index"])
        replayed = self._recordings.replay(batch, factor=factor)
        if replayed is not None:
            loss, losses, weights = replayed
            return [(loss, weights.sum())], [_own(Shown(batch["index"], losses, batch["weights"]), num_examples)]
        is_due = self._recordings.is_due(batch)
        _, before = _random_state() if is_due else (None, None)
        totals, shown = plainly([{name: batch[name] for name in batch if name not in _FIXED}])
        if is_due:
            with self._used():
                self._recordings.record(
                    batch,
                    lambda inputs: summed(output_of(wrapped, inputs, **settings)),
                    factor=factor,
                    random_state=before,
                )
        return totals, [_own(shown[0], num_examples)]

    def close(self) -> None:
        """Free what the phase held."""
        if self._recordings is not None:
            self._recordings.close()
        self._compiled = self._recordings = None

    def _shaped(self, micro_batches: Sequence[Batch]) -> Batch | None:
        """The batch in a shape that comes again; None where there is none, or nothing is recorded any more.

        Batches are filled whether recorded or not, so that a run that was resumed rounds like one that was not.
        """
        if self._recordings is None or len(micro_batches) != 1:
            return None
        only = micro_batches[0]
        if "lengths" in only:
            found = filled(only, batch_size=self._batch_size)
            return None if found is None else fixed(found)
        return only if len(only["index"]) == self._batch_size else None

    def _used(self) -> AbstractContextManager[None]:
        return nullcontext() if self._compiled is None else self._compiled.used()

    def _guarded(self, run: Callable[[], tuple[Totals, list[Shown]]]) -> tuple[Totals, list[Shown]]:
        """Once more without compiled blocks, from the same random state, where something fails with them."""
        if self._compiled is None:
            return run()
        state = _random_state()
        try:
            with self._used():
                return run()
        except Exception as fault:
            if isinstance(fault, FinetuneError) or lacks_memory(fault):
                raise
            why = reason_of(fault)
        self._compiled = None
        warnings.warn(f"speed.compile: blocks are computed as they are: {why}", stacklevel=4)
        self._trained.clear()
        _restore(state)
        return run()


def _own(shown: Shown, num_examples: int) -> Shown:
    """Without the examples that filled the batch up; losses where each belongs to one example."""
    is_each = len(shown.ids) == len(shown.losses)
    return Shown(
        shown.ids[:num_examples],
        shown.losses[:num_examples] if is_each else shown.losses,
        shown.weights[:num_examples],
        {name: tensor[:num_examples] for name, tensor in shown.notes.items()},
    )


def _random_state() -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None


def _restore(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
