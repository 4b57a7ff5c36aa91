"""What a checkpoint must hold so that this run can go on from it; whatever else it holds makes it a damaged one.

Checksums say that files are as they were written. This says that what was written is this run's, whole: a weight that
is missing would silently train on from its start value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.manifest import DOCUMENT, TENSORS, DamagedError
from ..checkpoints.reading import Checkpoint
from ..choices import listed
from ..errors import RunFolderError
from ..optimizers import SGD, AdamW
from ..plan_document import differences
from .made_on import MadeOn
from .prepare import Prepared
from .sharding import model_state
from .state import READERS, RunState

_PROGRESS = "progress"
# What a save adds to the state of the run: its place in the log, tensors by file, where it was made.
_OWN = {"log_offset", "tensors", "made_on"}


def counted(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, int]:
    """How many tensors each file holds, as a checkpoint records it."""
    return {stem: len(part) for stem, part in tensors.items()}


def check_contents(checkpoint: Checkpoint, *, prepared: Prepared, optimizer: torch.optim.Optimizer) -> None:
    """Hold a checkpoint against the run that is to go on from it. On one rank: nothing is gathered.

    Raises:
        DamagedError: Something is missing, superfluous, of another shape, or beyond the run's end.
        RunFolderError: It was made under another plan; the message lists the differences.
    """
    for stem in ("plan", _PROGRESS):
        if stem not in checkpoint.documents:
            raise DamagedError(stem + DOCUMENT, "missing")
    _check_plan(checkpoint, prepared.document["identity"])
    _check_progress(checkpoint, total_steps=prepared.plan.total_steps)
    expected = model_state(prepared.forward, prepared.saved_names, take=Tensor.detach)
    _check_model(checkpoint.tensors.get("model", {}), expected)
    if name := not_finite(checkpoint.tensors["model"], dict(prepared.forward.model.named_parameters())):
        raise DamagedError("model" + TENSORS, f"{name}: not finite")
    strict = isinstance(prepared.config.optimizer, AdamW | SGD)  # a user's own kernel may keep what it likes
    _check_moments(checkpoint.tensors.get("optimizer", {}), optimizer, step=checkpoint.step, strict=strict)
    _check_counts(checkpoint)


def _check_plan(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    lines = differences(checkpoint.documents["plan"], identity)
    if lines:
        shown = "\n  ".join(lines[:20])
        raise RunFolderError(
            f"{checkpoint.path} was made under another plan, so it cannot be continued:\n  {shown}\n"
            "Undo these changes, or start a new run in another output_dir."
        )


def _check_progress(checkpoint: Checkpoint, *, total_steps: int) -> None:
    progress, file = checkpoint.documents[_PROGRESS], _PROGRESS + DOCUMENT
    try:
        state = RunState.from_document(progress)
        MadeOn.from_document(progress.get("made_on"))
    except ValueError as fault:
        raise DamagedError(file, str(fault)) from fault
    if state.step != checkpoint.step or state.step > total_steps:
        raise DamagedError(file, f"step {state.step} of {total_steps}, in the checkpoint of step {checkpoint.step}")
    unknown = sorted(progress.keys() - READERS.keys() - _OWN)
    if unknown:
        raise DamagedError(file, f"{listed(unknown, most=3)}: not known to this version of finetune")
    if type(progress.get("log_offset")) is not int or progress["log_offset"] < 0:
        raise DamagedError(file, "log_offset: no place in a log")


def _check_counts(checkpoint: Checkpoint) -> None:
    """Of files that are not named here too, and of the moments of a weight, which need not have any."""
    counts = counted(checkpoint.tensors)
    if checkpoint.documents[_PROGRESS].get("tensors") != counts or not {"model", "optimizer"} <= counts.keys():
        found = ", ".join(f"{count} in {stem}{TENSORS}" for stem, count in counts.items())
        raise DamagedError(_PROGRESS + DOCUMENT, f"tensors: not as many as were saved ({found or 'none'})")


def _check_model(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    file = "model" + TENSORS
    odd = sorted(found.keys() ^ expected.keys())
    if odd:
        kind = "missing" if odd[0] in expected else "no weight of this run"
        raise DamagedError(file, f"{odd[0]}: {kind}")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            raise DamagedError(file, f"{name}: {_told(tensor)}, expected {_told(expected[name])}")


def not_finite(found: Mapping[str, Tensor], weights: Collection[str]) -> str:
    """The first of the weights that holds what is no number, or ""; a buffer may hold an infinite mask."""
    return next((name for name, tensor in found.items() if name in weights and not _is_finite(tensor)), "")


def _is_finite(tensor: Tensor) -> bool:
    # What is not finite makes its sum so, which costs a twentieth; where large numbers do, each is looked at.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _check_moments(found: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, *, step: int, strict: bool) -> None:
    """A kernel reads moments by the size of the weight: one of another shape would read past its end."""
    file = "optimizer" + TENSORS
    by_name: dict[str, dict[str, Tensor]] = {}
    for path, tensor in found.items():
        name, _, key = path.rpartition("/")
        by_name.setdefault(name, {})[key] = tensor
    kinds: dict[tuple[int, int], set[str]] = {}
    for number, group in enumerate(optimizer.param_groups):
        for name, parameter in zip(group["names"], group["params"], strict=True):
            state = by_name.pop(name, {})
            for key, tensor in state.items():
                if tensor.ndim == 0 and key == "step":
                    if not (0 <= float(tensor) <= step and float(tensor).is_integer()):
                        raise DamagedError(file, f"{name}/{key}: {float(tensor):g} of {step} updates")
                elif (strict or tensor.ndim == parameter.ndim) and tensor.shape != parameter.shape:
                    raise DamagedError(file, f"{name}/{key}: {_told(tensor)}, expected {_told(parameter)}")
            # Weights of one group and rank are kept alike, so a key that one of them lacks was lost.
            if state and kinds.setdefault((number, parameter.ndim), set(state)) != set(state):
                raise DamagedError(file, f"{name}: holds {listed(sorted(state))}, others of its group do not")
    if by_name:
        raise DamagedError(file, f"{min(by_name)}: nothing that this run trains")


def _told(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
