"""Checkpoints of a run: what is in one, when a failed save ends the run, and going on from one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoints.errand import Errand
from ..checkpoints.retention import Warn, rotate, set_aside_after, warned
from ..checkpoints.run_folder import RunFolder
from ..checkpoints.saving import Outcome, save_checkpoint
from ..checkpoints.snapshot import Snapshot
from ..durations import due_steps
from ..errors import DivergedError, RunFolderError, StorageError
from ..policies import best_evaluation
from ..speed import Speed
from .checkpoint_contents import counted, not_finite
from .made_on import MadeOn, made_here
from .placement import Placement
from .prepare import Prepared
from .restoring import Restorer, told_of_storage
from .sharding import load_model_state, model_state, optimizer_state, whole
from .state import RunState

_TOLERATED_FAILURES = 3  # saves in a row that may fail before the run ends: by then it trains for nothing


class _Flight(NamedTuple):
    """A save that was begun."""

    step: int
    errand: Errand[Outcome] | None  # on rank 0


class _Failure(NamedTuple):
    """Why there is no checkpoint of a step."""

    text: str
    is_spoiled: bool  # the weights are not worth keeping


class Saver:
    """Writes checkpoints of one run; without a run folder it keeps the best weights in memory.

    Unless ``async_save`` is off, a save costs the loop a copy in memory, and one thread writes it: at most one save
    is in flight, and whatever must see the disk waits for it. What came of it is shared by all ranks then, and
    never earlier: they all come to the same calls in the same order, but to no two instants at once.

    Args:
        prepared: The run.
        placement: Where it runs; every rank calls every method, because sharded tensors are gathered.
        optimizer: Its optimizer.
        folder: The run folder, on rank 0; None elsewhere and for a run that writes nothing.
        extra: Tensors of the run that are neither weights nor moments.
        has_folder: Whether rank 0 has a folder.
        speed: Whether saves are written beside the training.
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
        speed: Speed = Speed(),  # noqa: B008 (frozen)
    ) -> None:
        self._prepared = prepared
        self._placement = placement
        self._optimizer = optimizer
        self._restorer = Restorer(prepared, placement, optimizer, folder)
        self._folder = folder
        self._has_folder = has_folder
        self._extra = dict(extra)
        self._here = made_here(prepared, placement)
        policy, plan = prepared.config.checkpoint, prepared.plan
        due = partial(due_steps, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
        self._marks = due(policy.keep_every) if policy.keep_every is not None else []
        self._saves = due(policy.every) if policy.keep_spaced == "yes" else []
        self._is_async = speed.async_save == "auto"
        self._snapshot = Snapshot()
        self._flight: _Flight | None = None
        self._failures = 0
        self._last_saved: int | None = None
        self._best: tuple[int, dict[str, Tensor]] | None = None

    @property
    def last_saved(self) -> int | None:
        """The step of the newest checkpoint on the disk; waits for the one in flight, so every rank asks."""
        fault = self._landed()
        if fault is not None:
            self._warn(fault.text)
        return self._last_saved

    def save(self, state: RunState, *, final: bool = False) -> None:  # noqa: FBT001, FBT002
        """Save this step, then delete the checkpoints that need not stay.

        A save that fails costs a warning, by the next save at the latest; the run ends when it is the last one or
        the third in a row.

        Args:
            state: Of the run; copied.
            final: Return only when the checkpoint is on the disk.

        Raises:
            DivergedError: At the end a weight is not finite; on every rank, as the next.
            StorageError: The disk is full, or failed.
        """
        if not self._has_folder:
            self._keep_best(state)
            return
        self._land()
        if self._last_saved == state.step:
            return
        in_background = self._is_async and not final
        tensors = self._gathered(state, snapshot=in_background)
        work = self._work(state, tensors) if self._folder is not None else None
        if in_background:
            self._flight = _Flight(state.step, Errand(work) if work is not None else None)
            return
        self._tell(self._counted(state.step, work() if work is not None else None), final=final)
        if final:
            self._snapshot.release()

    def close(self) -> None:
        """Wait for the save in flight, however the run ended, and give the memory back.

        No rank waits for another here: one alone may have failed.
        """
        flight, self._flight = self._flight, None
        try:
            if flight is not None and flight.errand is not None:
                flight.errand.outlast()
                outcome = flight.errand.result()
                for text in outcome.warnings:
                    self._warn(text)
                if outcome.fault is not None:
                    self._warn(self._failure(flight.step, outcome).text)
        finally:
            self._snapshot.release()

    def resume(self) -> RunState | None:
        """Load the newest good checkpoint into model and optimizer; None where there is none yet.

        Raises:
            RunFolderError: It was made under another plan; the message lists the differences.
            StorageError: There are checkpoints, and none can be read.
        """
        found = self._restorer.newest()
        if found is None:
            self._placement.ranks.on_first(self._begin_log)
            return None
        self._restorer.put(found)
        self._extra = dict(found.tensors.get("extra", {}))
        state = RunState.from_document(found.documents["progress"])
        remembered = found.tensors.get("remembered", {})
        state.remembered = {name: tensor.to(self._placement.device) for name, tensor in remembered.items()}
        self._placement.ranks.on_first(partial(self._cut_back, found.documents["progress"]["log_offset"], state))
        before = MadeOn.from_document(found.documents["progress"]["made_on"])
        if told := self._here.told_of(before, step=found.step):
            self._warn(told)
        if before.micro_batch != self._here.micro_batch:  # what was halved is no longer asked for
            state.halvings = 0
        self._last_saved = found.step
        return state

    def reload(self) -> int | None:
        """Put the weights and moments of the newest good checkpoint into the run under way, and return its step.

        The clock, the evaluations and what the task remembers stay as they are; a parameter whose training began
        after that checkpoint has no moments any more. Every rank calls it. None where nothing was saved yet, and
        then nothing is changed.

        Raises:
            StorageError: There are checkpoints, and none can be read.
        """
        found = self._restorer.newest() if self._has_folder and self.last_saved is not None else None
        if found is None:
            return None
        self._restorer.put(found)
        return found.step

    @property
    def extra(self) -> dict[str, Tensor]:
        """Tensors that came with the checkpoint, or were handed in."""
        return self._extra

    def load_best(self, state: RunState) -> int:
        """Put the best weights into the model where some are kept, and return the step they are from."""
        self._land()
        best = best_evaluation(state.evaluations) if self._prepared.config.checkpoint.keep_best else None
        if best is None and self._prepared.config.checkpoint.keep_best:
            warnings.warn(f"{self._prepared.metric} was never a number, so the last weights are used", stacklevel=2)
        if best is None or best.step == state.step:
            return state.step
        try:
            weights = self._best_weights(best.step)
        except RunFolderError as fault:
            warnings.warn(f"the best weights (step {best.step}) {fault}; the last are used", stacklevel=2)
            return state.step
        load_model_state(self._prepared.forward, weights)
        return best.step

    def _begin_log(self) -> None:
        assert self._folder is not None
        if self._folder.log.offset:
            self._warn(f"{self._folder.checkpoints} holds no checkpoint yet: the run starts again at step 0")
        with told_of_storage(self._folder.path):
            self._folder.log.truncate_to(0)

    def _cut_back(self, log_offset: int, state: RunState) -> None:
        """Take back what a run wrote after the checkpoint that it goes on from."""
        assert self._folder is not None
        log = self._folder.log
        with told_of_storage(self._folder.path):
            if log.offset < log_offset:
                self._warn(f"{log.path} lacks lines that it had at step {state.step}; the run goes on without them")
            log.truncate_to(log_offset)
            set_aside_after(self._folder.checkpoints, state.step, run_id=self._folder.run_id)
            self._rotation(state)(warned)  # a kill between a save and its rotation leaves one too many

    def _best_weights(self, step: int) -> Mapping[str, Tensor]:
        if self._has_folder:
            return self._restorer.weights_of(step)
        if self._best is None or self._best[0] != step:
            raise RunFolderError("were not saved")
        return self._best[1]

    def _gathered(self, state: RunState, *, snapshot: bool) -> dict[str, dict[str, Tensor]]:
        """Weights and moments, whole, on the CPU; only the ranks that must take part in gathering do.

        Args:
            state: Of the run, for what its task remembers.
            snapshot: They must stay as they are while training goes on.
        """
        gathers = self._placement.is_sharded
        if self._folder is None and not gathers:
            return {}
        in_place = not gathers and (snapshot or self._placement.device.type == "cpu")
        take = Tensor.detach if in_place else whole
        tensors = {
            "model": model_state(self._prepared.forward, self._prepared.saved_names, take=take),
            "optimizer": optimizer_state(self._optimizer, take=take),
            **({"extra": self._extra} if self._extra else {}),
            **(
                {"remembered": {name: take(tensor) for name, tensor in state.remembered.items()}}
                if state.remembered
                else {}
            ),
        }
        return self._snapshot.take(tensors) if in_place and snapshot else tensors

    def _work(self, state: RunState, tensors: Mapping[str, Mapping[str, Tensor]]) -> Callable[[], Outcome]:
        """The save itself, over nothing that training changes."""
        assert self._folder is not None
        folder, snapshot = self._folder, self._snapshot
        weights = dict(self._prepared.forward.model.named_parameters()).keys()
        # Of the log only what is there now: lines of later steps would be told twice after a resume.
        progress = {
            **state.document(),
            "log_offset": folder.log.offset,
            "tensors": counted(tensors),
            "made_on": self._here._asdict(),
        }
        save = partial(
            save_checkpoint,
            folder,
            state.step,
            tensors=tensors,
            documents={"progress": progress, "plan": self._prepared.document["identity"]},
            parent_step=self._last_saved,
            rotate=self._rotation(state),
        )

        def work() -> Outcome:
            snapshot.wait()
            # An optimizer may spoil a weight by a step that looked well: no good checkpoint is deleted for that.
            if name := not_finite(tensors["model"], weights):
                return Outcome(f"{name} is not finite", is_spoiled=True)
            return save()

        return work

    def _land(self) -> None:
        """Wait for the save in flight; the loop hears of its failure here."""
        self._tell(self._landed(), final=False)

    def _landed(self) -> _Failure | None:
        """Wait for the save in flight, and share what came of it: its failure."""
        if self._flight is None:
            return None
        step, errand = self._flight
        outcome = errand.result() if errand is not None else None
        self._flight = None
        return self._counted(step, outcome)

    def _counted(self, step: int, outcome: Outcome | None) -> _Failure | None:
        """Share what came of a save, which rank 0 knows; its failure."""
        for text in outcome.warnings if outcome is not None else ():
            self._warn(text)
        shared: Outcome = self._placement.ranks.first(outcome)
        if shared.fault is None:
            self._failures, self._last_saved = 0, step
            return None
        self._failures += not shared.is_spoiled  # the next update shows what is wrong, and the run's policy decides
        return self._failure(step, shared)

    def _failure(self, step: int, outcome: Outcome) -> _Failure:
        last = f"step {self._last_saved}" if self._last_saved is not None else "none"
        what = "is not worth keeping" if outcome.is_spoiled else "could not be written"
        return _Failure(
            f"the checkpoint of step {step} {what} ({outcome.fault}); the newest one is: {last}", outcome.is_spoiled
        )

    def _tell(self, failure: _Failure | None, *, final: bool) -> None:
        """Warn of a failed save, or end the run.

        Raises:
            DivergedError: The weights with which it ends are not finite.
            StorageError: On every rank.
        """
        if failure is None:
            return
        if final and failure.is_spoiled:
            raise DivergedError(f"{failure.text}. Start again with a lower optimizer.lr.")
        if final or self._failures >= _TOLERATED_FAILURES:
            raise StorageError(f"{failure.text}. Free some space, or mend what failed, and go on with --resume.")
        self._warn(f"{failure.text}. Training goes on.")

    def _warn(self, text: str) -> None:
        if self._folder is not None:
            warnings.warn(text, stacklevel=3)

    def rotate(self, state: RunState) -> None:
        """Point ``best`` at the best checkpoint, and delete those that need not stay."""
        self._land()
        if self._folder is not None:
            self._rotation(state)(warned)

    def _rotation(self, state: RunState) -> Callable[[Warn], object]:
        """What deletes the checkpoints that need not stay by what is known now; in any thread, at any time."""
        assert self._folder is not None
        policy = self._prepared.config.checkpoint
        work = partial(
            rotate,
            self._folder.checkpoints,
            run_id=self._folder.run_id,
            scores={evaluation.step: evaluation.score for evaluation in state.evaluations},
            keep_last=policy.keep_last,
            keep_best=policy.keep_best,
            marks=self._marks,
            saves=self._saves,
        )
        return lambda warn: work(warn=warn)

    def _keep_best(self, state: RunState) -> None:
        best = best_evaluation(state.evaluations)
        if self._prepared.config.checkpoint.keep_best and best is not None and best.step == state.step:
            self._best = (state.step, model_state(self._prepared.forward, self._prepared.saved_names))
