"""A linear layer with a low-rank update of its frozen weight, in as few passes over memory as it can be done."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def merges(num_tokens: int, in_features: int, out_features: int) -> bool:
    """Whether to make W + scale * B A, or to add the update to what W gives.

    Either way the two thin products with the rank are what is left beside the products with W. Making the weight,
    once forward and once backward, passes over 2 * in * out numbers; adding the update to the output and to the
    input's gradient over num_tokens * (in + out). The rank is in both alike.
    """
    return num_tokens * (in_features + out_features) > 2 * in_features * out_features


def low_rank_linear(x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, *, scale: float) -> Tensor:
    """``x (weight + scale * b a)^T + bias`` with a frozen weight (Hu et al. 2021, arXiv 2106.09685, equation 3).

    Computed in the format of ``x``; a wider weight is merged in its own and rounded once, as autocast rounds a weight
    that is trained in full. Between forward and backward only ``x``, the parameters themselves and at most a
    (tokens, rank) product are kept. There is no second derivative.

    Args:
        x: (..., in).
        weight: (out, in), without gradient.
        bias: (out,).
        a: (rank, in).
        b: (out, rank).
        scale: Of the update.

    Returns:
        (..., out).
    """
    flat = x.reshape(-1, x.shape[-1])
    y: Tensor = _LowRankLinear.apply(flat, weight, bias, a, b, scale)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], y.shape[-1])


class _LowRankLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        needs_x, _, needs_bias, needs_a, needs_b, _ = ctx.needs_input_grad
        ctx.scale = scale
        ctx.is_merged = merges(len(x), weight.shape[1], weight.shape[0])
        bias = None if bias is None else bias.to(x.dtype)
        low = None
        if ctx.is_merged:
            y = functional.linear(x, _merged(weight, a, b, scale, like=x), bias)
        else:
            low = x @ a.to(x.dtype).T
            y = functional.linear(x, weight.to(x.dtype), bias)
            y.addmm_(low, b.to(x.dtype).T, alpha=scale)
        keeps_x = needs_a or (needs_b and low is None)
        ctx.save_for_backward(
            x if keeps_x else None,
            weight if needs_x else None,
            a if needs_x or needs_b else None,
            b if needs_x or needs_a else None,
            low if needs_b else None,
        )
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        needs_x, _, needs_bias, needs_a, needs_b, _ = ctx.needs_input_grad
        x, weight, a, b, low = ctx.saved_tensors
        scale, dtype = ctx.scale, dy.dtype
        dx = da = db = None
        with torch.autocast(dy.device.type, enabled=False):
            if needs_a or (needs_x and not ctx.is_merged):
                back = b.to(dtype).T @ dy.T  # (rank, tokens): half the time of dy @ b on a CPU
            if needs_x and ctx.is_merged:
                dx = dy @ _merged(weight, a, b, scale, like=dy)
            elif needs_x:
                dx = dy @ weight.to(dtype)
                dx.addmm_(back.T, a.to(dtype), alpha=scale)
            if needs_a:
                da = (back @ x).mul_(scale)
            if needs_b:
                low = x @ a.to(dtype).T if low is None else low
                db = (low.T @ dy).mul_(scale).T.contiguous()
            dbias = dy.sum(0) if needs_bias else None
        return dx, None, dbias, da, db, None


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: float, *, like: Tensor) -> Tensor:
    return torch.addmm(weight, b, a, alpha=scale).to(like.dtype)
