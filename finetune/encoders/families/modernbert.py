"""ModernBERT: rotary positions, and blocks that see a window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..attention import attend
from .text import forward_of, packed_attention

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...data.store import Batch
    from ..packing import Spans


class ModernBert:
    """A classifier with ModernBERT's blocks."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = model.model
        self._config = model.config
        self.blocks: Sequence[nn.Module] = self._base.layers
        self.reads_first_token = self._config.classifier_pooling == "cls"

    def embed(self, batch: Batch, spans: Spans | None) -> Tensor:
        return self._base.embeddings(input_ids=batch["input_ids"][None])

    def block(self, number: int, hidden: Tensor, spans: Spans | None) -> Tensor:
        block = self.blocks[number]
        with packed_attention(self._config):
            return block(
                hidden,
                attention_mask=None,
                position_embeddings=self._rotation(block.attention_type, hidden, spans),
                spans=spans,
            )

    def first_of_last_block(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        block = self.blocks[-1]
        with forward_of(block, partial(_first, block)):
            return block(hidden, spans, self._rotation(block.attention_type, hidden, spans))

    def head(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        hidden = self._base.final_norm(hidden)
        if not self.reads_first_token:
            assert spans is not None
            pooled = spans.means(hidden[0])
        else:
            pooled = hidden[:, 0]
        model = self._model
        return model.classifier(model.drop(model.head(pooled)))

    def _rotation(self, kind: Any, hidden: Tensor, spans: Spans | None) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every token's position, made once a batch for each kind of block."""
        assert spans is not None
        key = f"rotation {kind} {hidden.dtype}"
        if key not in spans.shared:
            spans.shared[key] = self._base.rotary_emb(hidden, spans.positions[None], kind)
        return spans.shared[key]  # type: ignore[return-value]


def _first(block: Any, hidden: Tensor, spans: Spans, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """The layer's forward with one query an example: (1, examples, width) from (1, tokens, width)."""
    from transformers.models.modernbert.modeling_modernbert import rotate_half

    own = block.attn
    qkv = own.Wqkv(block.attn_norm(hidden)).view(1, hidden.shape[1], 3, -1, own.head_dim)
    query, key, value = (part.transpose(1, 2) for part in qkv.unbind(dim=-3))
    # Position 0 is not turned. The model's own code turns in fp32 whatever the rest computes in.
    query = query.index_select(2, spans.first).float().to(key.dtype)
    cos, sin = (part.unsqueeze(1) for part in rotation)
    turned = (key.float() * cos + rotate_half(key.float()) * sin).to(key.dtype)
    context, _ = attend(
        own,
        query,
        turned,
        value,
        None,
        spans=spans,
        dropout=own.attention_dropout if own.training else 0.0,
        scaling=own.head_dim**-0.5,
        sliding_window=own.sliding_window,
    )
    first = hidden.index_select(1, spans.first)
    attended = first + own.out_drop(own.Wo(context.reshape(first.shape[:2] + (-1,))))
    return attended + block.mlp(block.mlp_norm(attended))
