"""Checkpoints of a run: what is in one, when a failed save ends the run, and going on from one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.reading import Checkpoint, newest_good, read_checkpoint, step_name
from ..checkpoints.retention import rotate, set_aside_after
from ..checkpoints.run_folder import RunFolder
from ..checkpoints.writing import write_checkpoint
from ..errors import RunFolderError, StorageError
from ..plan_document import differences
from ..policies import best_evaluation
from .placement import Placement
from .prepare import Prepared
from .sharding import load_model_state, load_optimizer_state, model_state, optimizer_state
from .state import RunState

_TOLERATED_FAILURES = 3  # saves in a row that may fail before the run ends: by then it trains for nothing


@contextmanager
def told_of_storage(path: Path) -> Iterator[None]:
    """Turn a failed write of what a run cannot do without into one message.

    Raises:
        StorageError: The disk is full, or failed.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as fault:
        why = getattr(fault, "strerror", None) or str(fault)
        raise StorageError(f"{path} cannot be written ({why}). Free some space and go on with --resume.") from fault


class Saver:
    """Writes checkpoints of one run; without a run folder it keeps the best weights in memory.

    Args:
        prepared: The run.
        placement: Where it runs; every rank calls every method, because sharded tensors are gathered.
        optimizer: Its optimizer.
        folder: The run folder, on rank 0; None elsewhere and for a run that writes nothing.
        extra: Tensors of the run that are neither weights nor moments.
        has_folder: Whether rank 0 has a folder.
    """

    def __init__(
        self,
        prepared: Prepared,
        placement: Placement,
        optimizer: torch.optim.Optimizer,
        *,
        folder: RunFolder | None,
        has_folder: bool,  # noqa: FBT001
        extra: Mapping[str, Tensor],
    ) -> None:
        self._prepared = prepared
        self._placement = placement
        self._optimizer = optimizer
        self._folder = folder
        self._has_folder = has_folder
        self._extra = dict(extra)
        self._failures = 0
        self._last_saved: int | None = None
        self._best: tuple[int, dict[str, Tensor]] | None = None

    @property
    def last_saved(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._last_saved

    def save(self, state: RunState, *, final: bool = False) -> None:  # noqa: FBT001, FBT002
        """Write a checkpoint of this step, then delete those that need not stay.

        A save that fails costs a warning; the run ends when it is the last one or the third in a row.

        Raises:
            StorageError: On every rank.
        """
        if not self._has_folder:
            self._keep_best(state)
            return
        if self._last_saved == state.step:
            return
        tensors = self._gathered()
        fault = self._written(state, tensors) if self._folder is not None else None
        fault = self._placement.ranks.first(fault)
        if fault is None:
            self._failures, self._last_saved = 0, state.step
            return
        self._failures += 1
        last = f"step {self._last_saved}" if self._last_saved is not None else "none"
        text = f"the checkpoint of step {state.step} could not be written ({fault}); the newest one is: {last}"
        if final or self._failures >= _TOLERATED_FAILURES:
            raise StorageError(f"{text}. Free some space and go on with --resume.")
        if self._folder is not None:
            warnings.warn(f"{text}. Training goes on.", stacklevel=2)

    def resume(self) -> RunState | None:
        """Load the newest good checkpoint into model and optimizer; None where there is none yet.

        Raises:
            RunFolderError: It was made under another plan; the message lists the differences.
            StorageError: There are checkpoints, and none can be read.
        """
        ranks = self._placement.ranks
        path = ranks.on_first(self._newest_path)
        if path is None:
            return None
        checkpoint = read_checkpoint(path)
        self._check_plan(checkpoint)
        load_model_state(self._prepared.forward, checkpoint.tensors["model"])
        load_optimizer_state(self._optimizer, checkpoint.tensors["optimizer"])
        self._extra = dict(checkpoint.tensors.get("extra", {}))
        state = RunState.from_document(checkpoint.documents["progress"])
        if self._folder is not None:
            self._folder.log.truncate_to(checkpoint.documents["progress"]["log_offset"])
            set_aside_after(self._folder.checkpoints, checkpoint.step, run_id=self._folder.run_id)
            self.rotate(state)  # a kill between a save and its rotation leaves one too many
        self._last_saved = checkpoint.step
        return state

    @property
    def extra(self) -> dict[str, Tensor]:
        """Tensors that came with the checkpoint, or were handed in."""
        return self._extra

    def load_best(self, state: RunState) -> int:
        """Put the best weights into the model where some are kept, and return the step they are from."""
        best = best_evaluation(state.evaluations) if self._prepared.config.checkpoint.keep_best else None
        if best is None and self._prepared.config.checkpoint.keep_best:
            warnings.warn(f"{self._prepared.metric} was never a number, so the last weights are used", stacklevel=2)
        if best is None or best.step == state.step:
            return state.step
        weights = self._best_weights(best.step)
        if weights is None:
            warnings.warn(f"the best weights (step {best.step}) were not saved; the last are used", stacklevel=2)
            return state.step
        load_model_state(self._prepared.forward, weights)
        return best.step

    def _newest_path(self) -> Path | None:
        assert self._folder is not None
        found = newest_good(self._folder.checkpoints, run_id=self._folder.run_id)
        if found is None:
            self._folder.log.truncate_to(0)
        return found.path if found else None

    def _best_weights(self, step: int) -> Mapping[str, Tensor] | None:
        if not self._has_folder:
            return self._best[1] if self._best and self._best[0] == step else None
        root = self._placement.ranks.first(self._folder.checkpoints if self._folder else None)
        try:
            return read_checkpoint(root / step_name(step)).tensors["model"]
        except RunFolderError:
            return None

    def _gathered(self) -> dict[str, dict[str, Tensor]]:
        """Weights and moments, whole; only the ranks that must take part in gathering do."""
        if self._folder is None and not self._placement.is_sharded:
            return {}
        tensors = {
            "model": model_state(self._prepared.forward, self._prepared.saved_names),
            "optimizer": optimizer_state(self._optimizer),
        }
        return tensors | ({"extra": self._extra} if self._extra else {})

    def _written(self, state: RunState, tensors: Mapping[str, Mapping[str, Tensor]]) -> str | None:
        """Write, rotate, link; the fault in words where the disk refused."""
        assert self._folder is not None
        folder = self._folder
        try:
            progress = {**state.document(), "log_offset": folder.log.sync()}
            write_checkpoint(
                folder.checkpoints,
                state.step,
                tensors=tensors,
                documents={"progress": progress, "plan": self._prepared.document["identity"]},
                run_id=folder.run_id,
                parent_step=self._last_saved,
            )
            self.rotate(state)
        except OSError as fault:
            return fault.strerror or str(fault)
        return None

    def rotate(self, state: RunState) -> None:
        """Point ``best`` at the best checkpoint, and delete those that need not stay."""
        if self._folder is None:
            return
        policy = self._prepared.config.checkpoint
        rotate(
            self._folder.checkpoints,
            run_id=self._folder.run_id,
            scores={evaluation.step: evaluation.score for evaluation in state.evaluations},
            keep_last=policy.keep_last,
            keep_best=policy.keep_best,
        )

    def _keep_best(self, state: RunState) -> None:
        best = best_evaluation(state.evaluations)
        if self._prepared.config.checkpoint.keep_best and best is not None and best.step == state.step:
            self._best = (state.step, model_state(self._prepared.forward, self._prepared.saved_names))

    def _check_plan(self, checkpoint: Checkpoint) -> None:
        before: Mapping[str, Any] = checkpoint.documents["plan"]
        lines = differences(before, self._prepared.document["identity"])
        if lines:
            shown = "\n  ".join(lines[:20])
            raise RunFolderError(
                f"{checkpoint.path} was made under another plan, so it cannot be continued:\n  {shown}\n"
                "Undo these changes, or start a new run in another output_dir."
            )
