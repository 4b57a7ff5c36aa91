"""Vision transformers of timm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import nn

from .patches import kept_patches
from .text import forward_of

if TYPE_CHECKING:
    from torch import Tensor

    from ...data.store import Batch
    from ..packing import Spans


def fits(model: Any) -> bool:
    """Whether it is timm's VisionTransformer; a model of its own kind may compute something else between blocks."""
    from timm.models.vision_transformer import VisionTransformer

    return isinstance(model, VisionTransformer)


def take_any_size(model: Any) -> None:
    """Let it take images of any size, as ``dynamic_img_size=True`` does when timm makes one; no weight changes."""
    from timm.layers import Format

    model.dynamic_img_size = True
    model.patch_embed.strict_img_size = model.patch_embed.flatten = False
    model.patch_embed.output_fmt = Format.NHWC


class TimmViT:
    """A ViT or DeiT of timm."""

    def __init__(self, model: Any) -> None:
        from timm.models.vision_transformer import Attention, Block, VisionTransformer

        self._model = model
        self.blocks: Sequence[nn.Module] = list(model.blocks)
        last: Any = self.blocks[-1]
        is_plain = type(last) is Block and type(last.attn) is Attention and last.attn.gate is None
        self.reads_first_token = bool(
            is_plain and type(model) is VisionTransformer and model.global_pool == "token" and model.attn_pool is None
        )

    def embed(self, batch: Batch, spans: Spans | None) -> Tensor:
        model = self._model
        hidden = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(batch["pixel_values"]))))
        return kept_patches(hidden, batch, num_prefix=model.num_prefix_tokens)

    def block(self, number: int, hidden: Tensor, spans: Spans | None) -> Tensor:
        return self.blocks[number](hidden)

    def first_of_last_block(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        block = self.blocks[-1]
        with forward_of(block, partial(_first, block)):
            return block(hidden)

    def head(self, hidden: Tensor, spans: Spans | None) -> Tensor:
        return self._model.forward_head(self._model.norm(hidden))


def _first(block: Any, hidden: Tensor) -> Tensor:
    """Block's forward with one query an image: (examples, 1, width) from (examples, tokens, width)."""
    own, normed = block.attn, block.norm1(hidden)
    query, key, value = _projected(own, normed)
    query, key = own.q_norm(query), own.k_norm(key)
    context = F.scaled_dot_product_attention(
        query, key, value, dropout_p=own.attn_drop.p if own.training else 0.0, scale=own.scale
    )
    attended = own.proj_drop(own.proj(own.norm(context.transpose(1, 2).reshape(len(hidden), 1, own.attn_dim))))
    first = hidden[:, :1] + block.drop_path1(block.ls1(attended))
    return first + block.drop_path2(block.ls2(block.mlp(block.norm2(first))))


def _projected(own: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of first tokens, keys and values of all, (examples, heads, tokens, size)."""
    shape = (len(normed), -1, own.num_heads, own.head_dim)
    if type(own.qkv) is nn.Linear:
        weight, bias = own.qkv.weight, own.qkv.bias
        cut = own.attn_dim
        query = F.linear(normed[:, :1], weight[:cut], None if bias is None else bias[:cut])
        rest = F.linear(normed, weight[cut:], None if bias is None else bias[cut:])
        key, value = rest.chunk(2, dim=-1)
    else:  # an adapter around the three at once
        query, key, value = own.qkv(normed).chunk(3, dim=-1)
        query = query[:, :1]
    return tuple(part.reshape(shape).transpose(1, 2) for part in (query, key, value))  # type: ignore[return-value]
