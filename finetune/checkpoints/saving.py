"""One save, whole: the log synced, the checkpoint written, ``best`` pointed, what need not stay deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .retention import Warn
from .run_folder import RunFolder
from .writing import write_checkpoint

if TYPE_CHECKING:
    from torch import Tensor


class Outcome(NamedTuple):
    """What came of a save."""

    fault: str | None  # why there is no checkpoint, in the system's words
    warnings: tuple[str, ...] = ()  # what else failed: disk space is lost, not data
    is_spoiled: bool = False  # it is not worth keeping: the fault is that of the weights


def save_checkpoint(
    folder: RunFolder,
    step: int,
    *,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Mapping[str, Any]],
    parent_step: int | None,
    rotate: Callable[[Warn], object],
) -> Outcome:
    """Save in any thread: it prints nothing, and touches nothing but its arguments and the folder.

    Args:
        folder: The run folder; it must stay open.
        step: Updates attempted so far.
        tensors: File stem, then tensor name, then dense CPU tensor.
        documents: File stem, then JSON values; an offset into the log must not lie beyond its end now.
        parent_step: The step of the checkpoint that this run last saved or started from.
        rotate: Deletes the checkpoints that need not stay; is given whom to tell what failed.
    """
    told: list[str] = []
    root, run_id = folder.checkpoints, folder.run_id
    try:
        folder.log.sync()  # the checkpoint records how much of it there is
        write_checkpoint(root, step, tensors=tensors, documents=documents, run_id=run_id, parent_step=parent_step)
        rotate(told.append)
    except OSError as fault:
        return Outcome(fault.strerror or str(fault), tuple(told))
    return Outcome(None, tuple(told))
