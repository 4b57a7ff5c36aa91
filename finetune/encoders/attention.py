"""Attention within each sequence of a flat batch, under transformers' attention interface.

On a CPU sequences are grouped by length and each group is one batched product: kernels for ragged tensors
fall back to one product per sequence there. On a GPU the whole batch is one ragged call.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .packing import Group, Spans

NAME = "finetune_packed"


def register() -> None:
    """Make ``attend`` known to transformers under ``NAME``; it makes no mask for a name that it does not know."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Spans,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of every token to the tokens of its own sequence.

    Args:
        module: The attention module; unused.
        query: (1, heads, tokens, size), or (1, heads, examples, size): one query an example, its first token.
        key: (1, heads, tokens, size).
        value: (1, heads, tokens, size).
        attention_mask: None; ``spans`` says who sees whom.
        spans: Of the batch.
        dropout: On the probabilities.
        scaling: Of the products; None: 1 / sqrt(size).
        sliding_window: Tokens further apart than this minus one do not see each other.

    Returns:
        (1, tokens or examples, heads, size), and no weights.
    """
    assert attention_mask is None
    flat = [tensor.transpose(1, 2).squeeze(0) for tensor in (query, key, value)]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = None if sliding_window is None or spans.longest <= sliding_window else sliding_window - 1
    if (query.device.type == "cuda" or spans.is_fixed) and window is None:
        return _ragged(*flat, spans=spans, dropout=dropout, scale=scale).unsqueeze(0), None
    return _Grouped.apply(*flat, spans, dropout, scale, window).unsqueeze(0), None


def _ragged(query: Tensor, key: Tensor, value: Tensor, *, spans: Spans, dropout: float, scale: float) -> Tensor:
    """One call for the whole batch; sizes are handed over, so that nothing is read off the device."""
    is_first_only = len(query) != spans.num_tokens
    own = torch.arange(len(query) + 1, device=query.device) if is_first_only else spans.offsets
    most = 1 if is_first_only else spans.longest
    q = _nested(query, own, least=1 if is_first_only else spans.shortest, most=most)
    k, v = (_nested(each, spans.offsets, least=spans.shortest, most=spans.longest) for each in (key, value))
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
    return out.transpose(1, 2).values()


def _nested(rows: Tensor, offsets: Tensor, *, least: int, most: int) -> Tensor:
    nested = torch.nested.nested_tensor_from_jagged(rows.contiguous(), offsets, min_seqlen=least, max_seqlen=most)
    return nested.transpose(1, 2)


class _Grouped(torch.autograd.Function):
    """softmax(scale Q K^T) V by groups, with dropout on the probabilities; only the probabilities are kept.

    Written out, because autograd would turn each gather of rows into a scatter with addition, and because the
    CPU kernels of torch take no dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        spans: Spans,
        dropout: float,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """(rows, heads, size) each; as many rows as ``query`` has."""
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        is_first = len(query) != spans.num_tokens
        out = torch.empty_like(query)
        saved = []
        for group in spans.groups:
            q = _first_queries(query, group) if is_first else _filled(query, group)
            probabilities = _probabilities(q, _filled(key, group), group, scale=scale, window=window)
            noise, kept = None, probabilities
            if dropout > 0:
                noise = torch.empty_like(probabilities).bernoulli_(1 - dropout).div_(1 - dropout)
                kept = probabilities * noise
            attended = torch.bmm(kept, _filled(value, group))
            _place_first(out, attended, group) if is_first else _place(out, attended, group)
            saved += [probabilities, noise]
        ctx.save_for_backward(query, key, value, *saved)
        ctx.spans, ctx.scale, ctx.is_first = spans, scale, is_first
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Of the three inputs."""
        grad = gradients[0].contiguous()
        query, key, value, *saved = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for number, group in enumerate(ctx.spans.groups):
            probabilities, noise = saved[2 * number : 2 * number + 2]
            kept = probabilities if noise is None else probabilities * noise
            g = _first_queries(grad, group) if ctx.is_first else _filled(grad, group, fill="zeros")
            q = _first_queries(query, group) if ctx.is_first else _filled(query, group)
            _place(dv, torch.bmm(kept.mT, g), group)
            d = torch.bmm(g, _filled(value, group).mT)
            if noise is not None:
                d.mul_(noise)
            # of softmax: P * (dP - sum(dP * P))
            d = torch._softmax_backward_data(d, probabilities, -1, probabilities.dtype).mul_(ctx.scale)
            to_query = torch.bmm(d, _filled(key, group))
            _place_first(dq, to_query, group) if ctx.is_first else _place(dq, to_query, group)
            _place(dk, torch.bmm(d.mT, q), group)
        return dq, dk, dv, None, None, None, None


def _probabilities(q: Tensor, k: Tensor, group: Group, *, scale: float, window: int | None) -> Tensor:
    """(sequences x heads, queries, width), in fp32 or more inside."""
    scores = torch.bmm(q, k.mT).mul_(scale)
    hidden = None if group.is_full else ~group.mask[:, None, None, :]
    if window is not None:
        places = torch.arange(group.width, device=q.device)
        far = (places[: q.shape[1], None] - places).abs() > window  # a single query is the first token
        hidden = far if hidden is None else hidden | far
    if hidden is not None:
        scores.view(group.num, -1, q.shape[1], group.width).masked_fill_(hidden, torch.finfo(scores.dtype).min)
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return torch.softmax(scores, -1, dtype=wide).to(q.dtype)


def _filled(rows: Tensor, group: Group, *, fill: Literal["any", "zeros"] = "any") -> Tensor:
    """(sequences x heads, width, size) of a group, from (tokens, heads, size)."""
    heads, size = rows.shape[1:]
    there, _ = group.indices(heads)
    filled = rows.view(-1, size).index_select(0, there).view(-1, group.width, size)
    if fill == "zeros" and not group.is_full:  # nothing was read from what an unreal query gave
        filled.view(group.num, heads, group.width, size).mul_(group.mask[:, None, :, None])
    return filled


def _place(out: Tensor, filled: Tensor, group: Group) -> None:
    """Write the real places of (sequences x heads, width, size) into (tokens, heads, size)."""
    heads, size = out.shape[1:]
    _, back = group.indices(heads)
    flat = filled.view(-1, size)
    if isinstance(group.rows, slice):
        torch.index_select(flat, 0, back, out=out[group.rows].view(-1, size))
    else:
        out.index_copy_(0, group.rows, flat.index_select(0, back).view(-1, heads, size))


def _first_queries(rows: Tensor, group: Group) -> Tensor:
    """(sequences x heads, 1, size) of a group, from (examples, heads, size)."""
    return rows.index_select(0, group.examples).view(-1, 1, rows.shape[-1])


def _place_first(out: Tensor, filled: Tensor, group: Group) -> None:
    """Write (sequences x heads, 1, size) into (examples, heads, size)."""
    out.index_copy_(0, group.examples, filled.view(group.num, *out.shape[1:]))
