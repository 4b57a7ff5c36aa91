"""BERT, RoBERTa, XLM-RoBERTa and ELECTRA: one block, four embeddings and heads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .text import first_attended, forward_of, packed_attention

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...data.store import Batch
    from ..packing import Spans

TYPES = ("bert", "roberta", "xlm-roberta", "electra", "camembert")


class BertLike:
    """A classifier with BERT's blocks."""

    reads_first_token = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = getattr(model, model.base_model_prefix)
        self._config = model.config
        self.blocks: Sequence[nn.Module] = self._base.encoder.layer
        # fairseq's numbering: the first token has position padding_idx + 1
        padding = getattr(self._base.embeddings, "padding_idx", None)
        self._first_position = 0 if padding is None else padding + 1
        self._project = getattr(self._base, "embeddings_project", None)
        self._pooler = getattr(self._base, "pooler", None)

    def embed(self, batch: Batch, spans: Spans | None) -> Tensor:
        assert spans is not None
        types = batch.get("token_type_ids")
        hidden = self._base.embeddings(
            input_ids=batch["input_ids"][None],
            token_type_ids=None if types is None else types[None],
            position_ids=spans.positions[None] + self._first_position,
        )
        return hidden if self._project is None else self._project(hidden)

    def block(self, number: int, hidden: Tensor, spans: Spans | None) -> Tensor:
        with packed_attention(self._config):
            return self.blocks[number](hidden, None, spans=spans)

    def first_of_last_block(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        block = self.blocks[-1]
        with forward_of(block, partial(_first, block)):
            return block(hidden, spans)

    def head(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        if self._pooler is not None:
            return self._model.classifier(self._model.dropout(self._pooler(hidden)))
        return self._model.classifier(hidden)


def _first(block: Any, hidden: Tensor, spans: Spans) -> Tensor:
    """BertLayer's forward with one query an example: (1, examples, width) from (1, tokens, width)."""
    own = block.attention.self
    context, first = first_attended(own, query=own.query, key=own.key, value=own.value, hidden=hidden, spans=spans)
    attended = block.attention.output(context, first)
    return block.output(block.intermediate(attended), attended)
