"""DistilBERT."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .text import first_attended, forward_of, packed_attention

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...data.store import Batch
    from ..packing import Spans


class DistilBert:
    """A classifier with DistilBERT's blocks."""

    reads_first_token = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = model.distilbert
        self._config = model.config
        self.blocks: Sequence[nn.Module] = self._base.transformer.layer

    def embed(self, batch: Batch, spans: Spans | None) -> Tensor:
        assert spans is not None
        return self._base.embeddings(batch["input_ids"][None], position_ids=spans.positions[None])

    def block(self, number: int, hidden: Tensor, spans: Spans | None) -> Tensor:
        with packed_attention(self._config):
            return self.blocks[number](hidden, None, spans=spans)

    def first_of_last_block(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        block = self.blocks[-1]
        with forward_of(block, partial(_first, block)):
            return block(hidden, spans)

    def head(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        model = self._model
        return model.classifier(model.dropout(model.pre_classifier(hidden[:, 0]).relu()))


def _first(block: Any, hidden: Tensor, spans: Spans) -> Tensor:
    """TransformerBlock's forward with one query an example: (1, examples, width) from (1, tokens, width)."""
    own = block.attention
    context, first = first_attended(own, query=own.q_lin, key=own.k_lin, value=own.v_lin, hidden=hidden, spans=spans)
    attended = block.sa_layer_norm(own.out_lin(context) + first)
    return block.output_layer_norm(block.ffn(attended) + attended)
