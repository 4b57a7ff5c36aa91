"""What a task remembers: shown the notes of each update over all ranks, and written down at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..checkpoints.run_folder import RunFolder
from ..progress import Progress
from ..tasks.base import Seen, Task
from .placement import Placement
from .state import RunState
from .update import Pending, Shown


def remember(
    state: RunState,
    pending: Pending,
    *,
    task: Task,
    progress: Progress,
    placement: Placement,
    num_examples: int,
    is_read: bool,  # noqa: FBT001
) -> None:
    """Let the task see an update that was applied; nothing for a task that remembers nothing.

    Args:
        state: Of the run; what is remembered is replaced.
        pending: The update.
        task: Of the run.
        progress: The clock of the update.
        placement: Where the run is; every rank calls.
        num_examples: Of the training split.
        is_read: Whether the figures of the update are there. Where they are not, an update that turns out bad ends
            the run, or is taken back together with what it has left here.
    """
    updated = getattr(task, "updated", None)
    if updated is None or (is_read and not pending.read().is_applied):
        return
    seen = gathered(pending.shown, placement, num_examples=num_examples)
    state.remembered = updated(state.remembered, seen, progress)


def gathered(shown: Sequence[Shown], placement: Placement, *, num_examples: int) -> Seen:
    """The notes of all micro-batches of all ranks, by example; without examples that only fill up a rank."""
    names = sorted(shown[0].notes)
    parts = [[each.ids, each.weights, *(each.notes[name] for name in names)] for each in shown]
    columns = [torch.cat(column).to(placement.device, torch.float64) for column in zip(*parts, strict=True)]
    rows = torch.stack(columns, 1)
    if placement.ranks.count > 1:
        rows = torch.from_numpy(placement.ranks.rows(rows.cpu().numpy())).to(placement.device)
        rows = rows[rows[:, 1] > 0]
    rows = rows[rows[:, 0].argsort(stable=True)]
    notes = {name: rows[:, at] for at, name in enumerate(names, start=2)}
    return Seen(rows[:, 0].long(), notes, num_examples)


def write_records(folder: RunFolder, task: Task, remembered: Mapping[str, Tensor], *, data: str) -> None:
    """What the task leaves: ``<name>.safetensors``, and beside it JSON that says of which data.

    Args:
        folder: Of the run.
        task: Of the run.
        remembered: At its end.
        data: Fingerprint of the training split, by whose examples the tensors go.
    """
    from safetensors.torch import save

    records = getattr(task, "records", None)
    for name, tensors in records(remembered).items() if records is not None else ():
        folder.write_document(f"{name}.safetensors", save(dict(tensors), metadata={"data": data}))
        counts = {key: len(tensor) for key, tensor in tensors.items()}
        folder.write_document(
            f"{name}.json", {"data": data, "num_examples": max(counts.values()), "tensors": [*counts]}
        )
