"""What the text families share: their blocks call attention through transformers' interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..attention import NAME, attend, register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..packing import Spans


@contextmanager
def packed_attention(config: Any) -> Iterator[None]:
    """Let the model's blocks call our attention; its own is put back, because its own forward still needs it."""
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def forward_of(block: nn.Module, forward: Any) -> Iterator[None]:
    """Run another function as a block's forward, inside the hooks that FSDP2 has put around it.

    A compiled call would not know of it, so the block is called plainly.
    """
    compiled = vars(block).pop("_compiled_call_impl", None)
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if compiled is not None:
            block._compiled_call_impl = compiled


def first_attended(
    own: Any, *, query: Any, key: Any, value: Any, hidden: Tensor, spans: Spans
) -> tuple[Tensor, Tensor]:
    """What attention gives for first tokens, and these tokens themselves, (1, examples, width) each.

    Args:
        own: The attention module, with BERT's names for its settings.
        query: Its projections, modules.
        key: Of keys.
        value: Of values.
        hidden: (1, tokens, width).
        spans: Of the batch.
    """
    size = own.attention_head_size
    first = hidden.index_select(1, spans.first)
    context, _ = attend(
        own,
        heads(query(first), size=size),
        heads(key(hidden), size=size),
        heads(value(hidden), size=size),
        None,
        spans=spans,
        dropout=own.dropout.p if own.training else 0.0,
        scaling=own.scaling,
    )
    return context.reshape(*first.shape[:2], -1), first


def heads(rows: Tensor, *, size: int) -> Tensor:
    """(1, heads, rows, size) from (1, rows, heads x size)."""
    return rows.view(*rows.shape[:-1], -1, size).transpose(1, 2)


register()
