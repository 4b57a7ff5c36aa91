"""One forward and backward before training: which planned weights get no gradient, and what backward keeps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from ..data.loading import weighted_batch
from ..data.store import Draw, Store, moved
from ..encoders import PREFIX, Forward
from ..progress import Progress
from ..tasks.base import Task
from .modes import is_batch_norm


class Probe(NamedTuple):
    """What the forward and backward of the longest example showed."""

    unused: tuple[str, ...]  # planned, and outside the graph: they can never train
    per_example: int  # bytes kept for backward, parameters left out
    per_batch: int  # bytes kept however many examples there are, such as matrices that are mixed anew in each forward


def probe(forward: Forward, store: Store, *, task: Task, progress: Progress, planned: Collection[str]) -> Probe:
    """Run the longest example through the bare model, with everything planned trainable; leaves no gradient."""
    names = {parameter: name.removeprefix(PREFIX) for name, parameter in forward.named_parameters()}
    before = {parameter: parameter.requires_grad for parameter in names}
    for parameter, name in names.items():
        parameter.requires_grad_(name in planned)
    trained = [parameter for parameter, name in names.items() if name in planned]
    modes = {module: module.training for module in forward.modules()}
    for module in forward.modules():  # all but batch norm, whose statistics a forward would move
        module.training = not is_batch_norm(module)
    try:
        longest = Draw(0, 0, int(np.argmax(store.lengths)))
        device = next(iter(names)).device
        one, two = (moved(weighted_batch(store, [longest] * count), device) for count in (1, 2))
        of_one = _losses(forward, one, task=task, progress=progress).kept
        losses, of_two = _losses(forward, two, task=task, progress=progress)
        gradients = torch.autograd.grad(losses.sum(), trained, allow_unused=True)
    finally:
        _restore(modes, before)
    unused = [names[p] for p, gradient in zip(trained, gradients, strict=True) if gradient is None]
    return Probe(tuple(sorted(unused)), max(0, of_two - of_one), max(0, 2 * of_one - of_two))


class _Held:
    """A tensor that the graph keeps; it lives as long as the part of the graph that does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Kept(NamedTuple):
    """A forward that is ready for backward."""

    losses: Tensor
    kept: int  # bytes


def _losses(forward: Forward, batch: Any, *, task: Task, progress: Progress) -> _Kept:
    own = {parameter.untyped_storage().data_ptr() for parameter in forward.parameters()}
    living: WeakSet[_Held] = WeakSet()  # not what was dropped during the forward, whose memory others took

    def note(tensor: Tensor) -> _Held:
        living.add(held := _Held(tensor.detach()))  # of the result of an operation: else the graph would hold itself
        return held

    with torch.autograd.graph.saved_tensors_hooks(note, lambda held: held.tensor):
        losses = task.forward(forward, batch, progress).losses
    assert losses is not None, "training needs labels"
    storages = (held.tensor.untyped_storage() for held in living)
    kept = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return _Kept(losses, sum(size for place, size in kept.items() if place not in own))


def _restore(modes: dict[nn.Module, bool], trainable: dict[nn.Parameter, bool]) -> None:
    for module, training in modes.items():
        module.training = training
    for parameter, requires_grad in trainable.items():
        parameter.requires_grad_(requires_grad)
