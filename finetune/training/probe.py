"""One forward and backward before training: which planned weights get no gradient, and what backward keeps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..data.loading import weighted_batch
from ..data.store import Draw, Store, moved
from ..encoders import PREFIX, Forward
from ..progress import Progress
from ..tasks.base import Task
from .modes import is_batch_norm


class Probe(NamedTuple):
    """What the forward and backward of the longest example showed."""

    unused: tuple[str, ...]  # planned, and outside the graph: they can never train
    activation_bytes: int  # kept for backward, parameters left out


def probe(forward: Forward, store: Store, *, task: Task, progress: Progress, planned: Collection[str]) -> Probe:
    """Run the longest example through the bare model, with everything planned trainable; leaves no gradient."""
    names = {parameter: name.removeprefix(PREFIX) for name, parameter in forward.named_parameters()}
    before = {parameter: parameter.requires_grad for parameter in names}
    for parameter, name in names.items():
        parameter.requires_grad_(name in planned)
    trained = [parameter for parameter, name in names.items() if name in planned]
    own = {parameter.untyped_storage().data_ptr() for parameter in names}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    modes = {module: module.training for module in forward.modules()}
    for module in forward.modules():  # all but batch norm, whose statistics a forward would move
        module.training = not is_batch_norm(module)
    try:
        longest = int(np.argmax(store.lengths))
        device = next(iter(names)).device
        batch = moved(weighted_batch(store, [Draw(0, 0, longest)] * 2), device)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = task.forward(forward, batch, progress)
        assert output.losses is not None, "training needs labels"
        gradients = torch.autograd.grad(output.losses.sum(), trained, allow_unused=True)
    finally:
        _restore(modes, before)
    unused = [names[p] for p, gradient in zip(trained, gradients, strict=True) if gradient is None]
    return Probe(tuple(sorted(unused)), sum(kept.values()) // 2)


def _restore(modes: dict[nn.Module, bool], trainable: dict[nn.Parameter, bool]) -> None:
    for module, training in modes.items():
        module.training = training
    for parameter, requires_grad in trainable.items():
        parameter.requires_grad_(requires_grad)
