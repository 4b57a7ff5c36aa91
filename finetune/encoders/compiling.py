"""Blocks compiled one by one, in place, and only while an update is computed.

All blocks of a class share what is compiled, so it is paid for once, not once per block. Attention stays outside:
where texts lie differs from batch to batch, and its kernels are fused as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from .attention import NAME, attend


class CompiledBlocks:
    """The compiled calls of some blocks; nothing is compiled before the first of them runs.

    Args:
        blocks: Of the trunk.
        backend: Of ``torch.compile``.
    """

    def __init__(self, blocks: Sequence[nn.Module], *, backend: str = "inductor") -> None:
        # Module.compile makes the same call; kept apart, because evaluation and saving want the plain block
        self._calls = [(block, torch.compile(block._call_impl, dynamic=True, backend=backend)) for block in blocks]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the blocks call what was compiled, inside whatever hooks they have; plain again afterwards."""
        with ExitStack() as undoing:
            undoing.enter_context(_attention_apart())
            for block, call in self._calls:
                undoing.callback(vars(block).pop, "_compiled_call_impl", None)
                vars(block)["_compiled_call_impl"] = call
            yield


@contextmanager
def _attention_apart() -> Iterator[None]:
    """Keep the compiler out of our attention, with a clean break on either side of it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _uncompiled())
    try:
        yield
    finally:
        AttentionInterface.register(NAME, attend)


@cache
def _uncompiled() -> Any:
    """One for the whole process: what is compiled is compiled anew where it meets another function."""
    return torch.compiler.disable(attend)
