"""ViT, DeiT and DINOv2 of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from .patches import kept_patches
from .text import forward_of, heads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...data.store import Batch
    from ..packing import Spans

TYPES = ("vit", "deit")


class ViTLike:
    """A classifier with ViT's blocks, whose head reads the class token."""

    reads_first_token = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = getattr(model, model.base_model_prefix)
        self.blocks: Sequence[nn.Module] = self._base.layers
        self._num_prefix = 1 + hasattr(self._base.embeddings, "distillation_token")
        self._parts = [(block.attention.q_proj, block.layernorm_before) for block in self.blocks]  # else: not ours

    def embed(self, batch: Batch, spans: Spans | None) -> Tensor:
        is_other_size = "interpolate_pos_encoding" in batch
        hidden = self._base.embeddings(batch["pixel_values"], interpolate_pos_encoding=is_other_size)
        return kept_patches(hidden, batch, num_prefix=self._num_prefix)

    def block(self, number: int, hidden: Tensor, spans: Spans | None) -> Tensor:
        return self.blocks[number](hidden, None)

    def first_of_last_block(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        block = self.blocks[-1]
        with forward_of(block, partial(_first, block)):
            return block(hidden)

    def head(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        return self._model.classifier(self._base.layernorm(hidden)[:, 0])


class Dinov2:
    """A classifier with DINOv2's blocks, whose head reads the class token and the mean of the others."""

    reads_first_token = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = model.dinov2
        self.blocks: Sequence[nn.Module] = self._base.encoder.layer

    def embed(self, batch: Batch, spans: Spans | None) -> Tensor:
        return kept_patches(self._base.embeddings(batch["pixel_values"]), batch, num_prefix=1)

    def block(self, number: int, hidden: Tensor, spans: Spans | None) -> Tensor:
        return self.blocks[number](hidden)

    def first_of_last_block(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        raise AssertionError("the head reads every token")

    def head(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        hidden = self._base.layernorm(hidden)
        return self._model.classifier(torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=1))


def _first(block: Any, hidden: Tensor) -> Tensor:
    """ViTLayer's forward with one query an image: (examples, 1, width) from (examples, tokens, width)."""
    own = block.attention
    normed = block.layernorm_before(hidden)
    context = F.scaled_dot_product_attention(
        heads(own.q_proj(normed[:, :1]), size=own.head_dim),
        heads(own.k_proj(normed), size=own.head_dim),
        heads(own.v_proj(normed), size=own.head_dim),
        dropout_p=own.attention_dropout if own.training else 0.0,
        scale=own.scaling,
    )
    attended = own.o_proj(context.transpose(1, 2).reshape(len(hidden), 1, -1))
    attended = block.dropout(attended) + hidden[:, :1]
    return block.dropout(block.mlp(block.layernorm_after(attended))) + attended
