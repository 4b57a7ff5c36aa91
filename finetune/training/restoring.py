"""Reading checkpoints into a run: one process reads, and what it found, or why not, is what every rank gets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.manifest import DamagedError
from ..checkpoints.reading import Checkpoint, load, newest_good, reason, step_name
from ..checkpoints.run_folder import RunFolder
from ..errors import RunFolderError, StorageError
from .checkpoint_contents import check_contents
from .placement import Placement
from .prepare import Prepared
from .sharding import from_first, load_model_state, load_optimizer_state

# How safetensors and tokenizers pass on what the system said: neither raises an OSError, the latter a bare Exception.
_OF_THE_SYSTEM = re.compile(r"\(os error \d+\)")


@contextmanager
def told_of_storage(path: Path, *, what: str = "written") -> Iterator[None]:
    """Turn a failed write (or whatever ``what`` says) of what a run cannot do without into one message.

    Raises:
        StorageError: The disk is full, or failed.
    """
    try:
        yield
    except Exception as fault:
        if not isinstance(fault, OSError) and not _OF_THE_SYSTEM.search(str(fault)):
            raise
        why = getattr(fault, "strerror", None) or str(fault)
        remedy = "Free some space, or mend what failed," if what == "written" else "Mend that,"
        raise StorageError(f"{path} cannot be {what} ({why}). {remedy} and go on with --resume.") from fault


class Restorer:
    """Reads checkpoints of one run; every rank calls every method.

    Args:
        prepared: The run.
        placement: Where it runs.
        optimizer: Its optimizer.
        folder: The run folder, on rank 0; None elsewhere.
    """

    def __init__(
        self, prepared: Prepared, placement: Placement, optimizer: torch.optim.Optimizer, folder: RunFolder | None
    ) -> None:
        self._prepared = prepared
        self._placement = placement
        self._optimizer = optimizer
        self._folder = folder

    def newest(self) -> Checkpoint | None:
        """The newest that this run can go on from; None where there is none at all.

        Raises:
            RunFolderError: It was made under another plan; the message lists the differences.
            StorageError: There are checkpoints, and none can be read.
        """

        def read(folder: RunFolder) -> Checkpoint | None:
            with told_of_storage(folder.checkpoints, what="read"):
                return newest_good(folder.checkpoints, run_id=folder.run_id, check=self._check)

        return self._read(read)

    def weights_of(self, step: int) -> Mapping[str, Tensor]:
        """The weights of one step.

        Raises:
            RunFolderError: They were not saved, or cannot be read; in the words that follow their name.
        """

        def read(folder: RunFolder) -> Checkpoint:
            path = folder.checkpoints / step_name(step)
            if not path.exists():
                raise RunFolderError("were not saved")
            try:
                found = load(path)
                self._check(found)
            except (DamagedError, OSError) as fault:
                raise RunFolderError(f"cannot be read: {reason(fault)}") from fault
            return replace(found, tensors={"model": found.tensors["model"]})

        found = self._read(read)
        assert found is not None
        return found.tensors["model"]

    def put(self, found: Checkpoint) -> None:
        """Write weights and moments into model and optimizer."""
        load_model_state(self._prepared.forward, found.tensors["model"])
        load_optimizer_state(self._optimizer, found.tensors["optimizer"])

    def _check(self, found: Checkpoint) -> None:
        check_contents(found, prepared=self._prepared, optimizer=self._optimizer)

    def _read(self, read: Callable[[RunFolder], Checkpoint | None]) -> Checkpoint | None:
        """What rank 0 reads, on every rank: nobody else looks at the disk, so no two can find different things."""
        here: list[Checkpoint] = []

        def on_first() -> Checkpoint | None:
            assert self._folder is not None
            found = read(self._folder)
            if found is None:
                return None
            here.append(found)
            return replace(found, tensors={})

        told = self._placement.ranks.on_first(on_first)
        if told is None:
            return None
        return replace(told, tensors=from_first(self._placement.ranks, here[0].tensors if here else {}))
