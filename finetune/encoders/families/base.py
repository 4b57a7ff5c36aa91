"""What a family tells: its blocks, and how to enter and leave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...data.store import Batch
    from ..packing import Spans


class Family(Protocol):
    """The parts of one classifier. ``hidden`` is (1, tokens, width) for texts, (examples, tokens, width) for images.

    ``reads_first_token``: the head reads the first token of each example and no other.
    ``blocks`` are the model's own modules, in order.
    """

    reads_first_token: bool
    blocks: Sequence[nn.Module]

    def embed(self, batch: Batch, spans: Spans | None) -> Tensor:
        """What the first block takes."""

    def block(self, number: int, hidden: Tensor, spans: Spans | None) -> Tensor:
        """One block on every token."""

    def first_of_last_block(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        """The last block on the first token of each example only, (1, examples, width) or (examples, 1, width)."""

    def head(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        """Logits, (examples, classes).

        Where ``reads_first_token``, from (examples, 1, width); else from all tokens.
        """
