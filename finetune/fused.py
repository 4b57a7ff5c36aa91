"""AdamW and SGD with one kernel call for all parameter groups that are set alike, instead of one per group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd


class FusedAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW(fused=True)`` in fewer calls; state, hooks, ``grad_scale`` and ``found_inf`` are torch's.

    Sharded parameters are updated shard by shard: the update is elementwise, so no rank needs another's part.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for (lr, weight_decay, (beta1, beta2), eps), parameters in _alike(self, "lr", "weight_decay", "betas", "eps"):
            states = [self.state[parameter] or self._begun(parameter) for parameter in parameters]
            adamw(
                _local(parameters),
                _gradients(parameters),
                _local([state["exp_avg"] for state in states]),
                _local([state["exp_avg_sq"] for state in states]),
                [],
                [state["step"] for state in states],
                fused=True,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=lr,
                weight_decay=weight_decay,
                eps=eps,
                maximize=False,
            )

    def _begun(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state of a parameter that gets its first gradient."""
        state = self.state[parameter]
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


class FusedSGD(torch.optim.SGD):
    """``torch.optim.SGD(fused=True)`` in fewer calls, without dampening.

    Momentum begins at zero, which equals torch's first step, and stays defined where that step is not applied.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for (lr, weight_decay, momentum), parameters in _alike(self, "lr", "weight_decay", "momentum"):
            buffers = _local([self._buffer(parameter) for parameter in parameters]) if momentum else []
            sgd(
                _local(parameters),
                _gradients(parameters),
                [*buffers] or [None] * len(parameters),
                fused=True,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                weight_decay=weight_decay,
                momentum=momentum,
                lr=lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def _alike(optimizer: torch.optim.Optimizer, *settings: str) -> Iterator[tuple[tuple[Any, ...], list[Tensor]]]:
    """Parameters that have a gradient, by the settings of their groups."""
    found: dict[tuple[Any, ...], list[Tensor]] = {}
    for group in optimizer.param_groups:
        given = [parameter for parameter in group["params"] if parameter.grad is not None]
        if given:
            found.setdefault(tuple(group[name] for name in settings), []).extend(given)
    yield from found.items()


def _local(tensors: list[Tensor]) -> list[Tensor]:
    """This rank's parts."""
    if not any(isinstance(tensor, DTensor) for tensor in tensors):
        return tensors
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return _local([parameter.grad for parameter in parameters if parameter.grad is not None])
