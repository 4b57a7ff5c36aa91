"""Whole tensors from sharded ones and back, and a model's and optimizer's state by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..encoders import PREFIX
from .ranks import Ranks


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on the CPU; a collective where it is sharded, so every rank calls it."""
    tensor = tensor.detach()
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.cpu().clone()


def local(tensor: Tensor) -> Tensor:
    """This rank's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_like(full: Tensor, reference: Tensor) -> Tensor:
    """``full`` placed and cut as ``reference`` is."""
    full = full.to(device=reference.device, dtype=reference.dtype)
    if isinstance(reference, DTensor):
        return distribute_tensor(full, reference.device_mesh, reference.placements)
    return full


def from_first(ranks: Ranks, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Rank 0's tensors on every rank, on the CPU; what the others give is not looked at.

    So one process reads a file for all: no two can find different things in it, or one of them a fault.
    """
    kinds = ranks.first(
        {stem: {name: (one.dtype, tuple(one.shape)) for name, one in part.items()} for stem, part in tensors.items()}
    )
    return {
        stem: {
            name: ranks.tensor_of_first(tensors[stem][name] if ranks.is_first else torch.empty(shape, dtype=dtype))
            for name, (dtype, shape) in part.items()
        }
        for stem, part in kinds.items()
    }


def model_state(
    forward: nn.Module, names: Iterable[str], *, take: Callable[[Tensor], Tensor] = whole
) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, whole, without the wrapper's prefix; each as ``take`` gives it."""
    wanted = set(names)
    state = forward.state_dict()
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.removeprefix(PREFIX) in wanted:
            found[name.removeprefix(PREFIX)] = take(tensor)
    return found


def load_model_state(forward: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Write these tensors into the model, in place."""
    state = forward.state_dict()
    with torch.no_grad():
        for name, full in sorted(saved.items()):  # cutting is a collective: every rank in one order
            target = state[PREFIX + name]
            if tuple(target.shape) != tuple(full.shape):
                raise ValueError(f"{name}: {tuple(full.shape)} in the checkpoint, {tuple(target.shape)} in the model")
            target.copy_(sharded_like(full, target))


def optimizer_state(
    optimizer: torch.optim.Optimizer, *, take: Callable[[Tensor], Tensor] = whole
) -> dict[str, Tensor]:
    """Optimizer state as ``"<parameter name>/<state name>"``, whole; groups that never trained have none."""
    found: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in sorted(optimizer.state.get(parameter, {}).items()):
                if value is not None:
                    found[f"{name}/{key}"] = take(torch.as_tensor(value))
    return found


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Give each parameter the state saved under its name; one that has none there has none any more."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for path, tensor in sorted(saved.items()):  # cutting is a collective: every rank in one order
        name, _, key = path.rpartition("/")
        by_name.setdefault(name, {})[key] = tensor
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            state: dict[str, Any] = by_name.pop(name, {})
            if state:
                optimizer.state[parameter] = {key: _placed(full, parameter) for key, full in state.items()}
            else:
                optimizer.state.pop(parameter, None)
    assert not by_name, f"optimizer state of unknown parameters: {sorted(by_name)[:3]}"


def _placed(full: Tensor, parameter: Tensor) -> Tensor:
    """A moment lies as its parameter does; a step count is a plain scalar."""
    # A fused kernel reads moments by the parameter's size: one of another shape would read past its end.
    assert full.ndim != parameter.ndim or full.shape == parameter.shape, (tuple(full.shape), tuple(parameter.shape))
    if full.ndim == 0:
        return full.clone() if not parameter.is_cuda else full.to(parameter.device)
    return sharded_like(full, parameter).clone()
